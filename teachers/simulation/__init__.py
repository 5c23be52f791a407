"""Tasks in motion: rollouts in MJX, episodes in MuJoCo C, Gymnasium environments, pictures and the viewer."""
