"""The students of a comparison: distilled into one folder, or loaded from it where an earlier call finished them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

from etils import epath

from distill.config import DistillConfig, distill_config
from distill.programs import DistillPrograms
from distill.resume import is_resumable
from distill.run import distill_teacher
from students.artefact import Student, load_finished_student
from teachers.agent import Teacher, describe_teacher
from teachers.evaluate import evaluate_agent
from teachers.measures import Outcomes, summarise_seeds
from teachers.runs.errors import InputError
from teachers.runs.lock import lock_folder
from teachers.runs.outputs import create_marked_folder, read_marker
from teachers.runs.progress import Progress, ignore_progress

MARKER = ".crl-distill-compare"  # holds the teacher's digest
RETENTION_METRICS = ("retention", "time_at_goal", "success_at_end")

# Returns the progress report of a student, given its name.
ReportProgress = Callable[[str], AbstractContextManager[Progress]]


def report_nothing(name: str) -> AbstractContextManager[Progress]:
    """Returns a progress report that shows nothing."""
    return nullcontext(ignore_progress)


class ComparedStudents:
    """A teacher's students, whose runs lie in one folder.

    Attributes:
        reference: returns the outcomes of the teacher's episodes with a seed.
    """

    def __init__(
        self, teacher: Teacher, out: epath.Path, episodes: int, progress: ReportProgress
    ) -> None:
        """Distills nothing yet.

        Args:
            teacher: of the students.
            out: the folder of the comparison.
            episodes: of each evaluation.
            progress: of each student.
        """
        self._teacher, self._out = teacher, out
        self._episodes, self._progress = episodes, progress
        self.reference: Callable[[int], Outcomes] = cache(
            lambda seed: evaluate_agent(teacher, episodes, seed)
        )

    def distill(
        self, name: str, settings: Mapping[str, Any], seeds: Sequence[int] = (0,)
    ) -> list[Student]:
        """Returns a student for each seed, loaded if its run is finished and distilled otherwise.

        The students share their compiled programs.

        Args:
            name: folder of their runs.
            settings: by dotted key.
            seeds: of the students.
        """
        programs: DistillPrograms | None = None
        students = []
        for seed in seeds:
            config = self.resolve({**settings, "seed": seed, "episodes": self._episodes})
            run = self._out / "students" / name / f"seed-{seed}"
            student = load_finished_student(run, config, self._teacher.task)
            if student is None:
                programs = programs or DistillPrograms(config, self._teacher)
                with self._progress(f"{name}, seed {seed}") as report:
                    student = distill_teacher(
                        self._teacher,
                        config,
                        run,
                        resume=is_resumable(run),
                        force=True,
                        reference=self.reference(seed),
                        programs=programs,
                        progress=report,
                    )
            students.append(student)
        return students

    def resolve(self, settings: Mapping[str, Any]) -> DistillConfig:
        """Returns the configuration of a distillation with these settings, by dotted key."""
        steps = self._teacher.metadata.metrics["steps"]
        return distill_config(overrides=settings, task=self._teacher.task).for_teacher(steps)


@contextmanager
def comparison_folder(out: epath.Path, teacher: Teacher) -> Iterator[None]:
    """Locks the folder of a teacher's comparison, new or begun.

    Raises:
        InputError: `out` holds something else, or another process writes it.
    """
    read_marker(out, MARKER, "a comparison")  # raises an error if `out` holds anything else
    with lock_folder(out):
        _mark_folder(out, describe_teacher(teacher)["digest"])
        yield


def _mark_folder(out: epath.Path, digest: str) -> None:
    """Marks a folder as that of a teacher's comparison, or checks that it is one of the same teacher."""
    marked = read_marker(out, MARKER, "a comparison")
    if marked is None:
        create_marked_folder(out, MARKER, digest + "\n")
    elif marked.strip() != digest:
        raise InputError(f"{out} is a comparison of another teacher; choose another --out")


def summarise_students(students: Sequence[Student]) -> dict[str, Any]:
    """Returns how many students there are, and their retention and what belongs to it, summarised over seeds."""
    metrics = [student.metadata.metrics for student in students]
    return {"seeds": len(students), **summarise_metrics(metrics)}


def summarise_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the retention and what belongs to it, summarised over seeds; None where a seed has no value."""
    result: dict[str, Any] = {}
    for name in RETENTION_METRICS:
        values = [row[name] for row in rows]
        if None in values:
            result |= {name: None, f"{name}_ci95": None, f"{name}_by_seed": values}
        else:
            result |= summarise_seeds(name, values)
    return result
