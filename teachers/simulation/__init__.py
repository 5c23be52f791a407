"""Tasks in motion: rollouts of many environments, single ones in MuJoCo C, Gymnasium environments, pictures and the viewer."""
