"""Shallow students: their networks, configuration and files, as in `from students import load_student`."""

from students.artefact import load_student, save_student
from students.config import MLPConfig, StudentConfig
from students.networks import student_networks

__all__ = ["MLPConfig", "StudentConfig", "load_student", "save_student", "student_networks"]
