"""Admits ONNX files: those that are complete, exported by crl-distill, and made of small, basic operators.

An ONNX file may name other files to read, ask for any amount of memory, and contain operators of any cost. ONNX Runtime
never sees a file that is refused here.
"""

from export.admission.contract import read_contract
from export.admission.files import admit_model, read_model, require_file

__all__ = ["admit_model", "read_contract", "read_model", "require_file"]
