from teachers.simulation.scene import build_scene
from teachers.tasks.registry import get_task


def test_build_scene_adds_squares_to_visible_floor_only() -> None:
    model = build_scene(get_task("ant_u_maze"))
    squares = model.material("picture_squares").id
    assert model.geom("floor").matid == squares
    for name in ("edge_0", "border_0"):
        assert model.geom(name).matid == -1
    assert model.geom("edge_0").rgba[3] == 0
