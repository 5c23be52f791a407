"""A ROS 2 node that runs an exported policy. It was written without ROS 2 at hand and has not been tested.

Copy it, `export/runtime.py`, `policy.onnx` and `critic.onnx` to one folder, and run:

    python3 ros2_node.py --ros-args -p policy:=policy.onnx -p critic:=critic.onnx

It subscribes to `observation`, which are the sensors' readings where the policy reads sensors, and `goal`
(`std_msgs/Float32MultiArray`, in the order and the units of the model card). Once
in every control period it publishes `action`, and `reachability` (`std_msgs/Float32`) with it. While an observation or a
goal is at fault it publishes the last safe action again, for half a second at most. After that, before the first
observation and goal, and while the observation is older than three periods, it publishes nothing: a watchdog of your
actuators must stop them then.

It is written for Python 3.8 and later.
"""

from __future__ import annotations

import numpy as np
import rclpy
from rclpy.node import Node
from runtime import FaultError, Policy
from std_msgs.msg import Float32, Float32MultiArray

MAX_AGE = 3  # control periods after which an observation is too old to act on


class PolicyNode(Node):
    """Publishes the policy's action once in every control period."""

    def __init__(self) -> None:
        """Opens the files that the node's parameters `policy` and `critic` name."""
        super().__init__("crl_distill_policy")
        files = [
            self.declare_parameter(name, f"{name}.onnx").value for name in ("policy", "critic")
        ]
        self._policy = Policy(files[0], critic=files[1], on_fault="hold")
        self._period = self._policy.metadata["control_period"]
        self._observation: np.ndarray | None = None
        self._goal: np.ndarray | None = None
        self._observed_at = self.get_clock().now()
        self._action = self.create_publisher(Float32MultiArray, "action", 1)
        self._reachability = self.create_publisher(Float32, "reachability", 1)
        self.create_subscription(Float32MultiArray, "observation", self._on_observation, 1)
        self.create_subscription(Float32MultiArray, "goal", self._on_goal, 1)
        self.create_timer(self._period, self._step)

    def _on_observation(self, message: Float32MultiArray) -> None:
        self._observation = np.array(message.data, np.float32)
        self._observed_at = self.get_clock().now()

    def _on_goal(self, message: Float32MultiArray) -> None:
        self._goal = np.array(message.data, np.float32)

    def _step(self) -> None:
        if self._observation is None or self._goal is None:
            return
        age = (self.get_clock().now() - self._observed_at).nanoseconds / 1e9
        if age > MAX_AGE * self._period:
            self.get_logger().warning(
                f"the observation is {age:.3f} s old", throttle_duration_sec=1
            )
            return
        held_before = self._policy.held
        try:
            action = self._policy(self._observation, self._goal)
            self._action.publish(Float32MultiArray(data=action.tolist()))
            if self._policy.held > held_before:
                self.get_logger().warning(self._policy.fault, throttle_duration_sec=1)
                return
            probability = self._policy.reachability(self._observation, self._goal)
        except FaultError as error:  # no safe action may be held, or the value is not finite
            self.get_logger().error(str(error), throttle_duration_sec=1)
            return
        self._reachability.publish(Float32(data=float(probability)))


def main() -> None:
    """Runs the node until it is stopped."""
    rclpy.init()
    node = PolicyNode()
    try:
        rclpy.spin(node)
    finally:
        node.destroy_node()
        rclpy.shutdown()


if __name__ == "__main__":
    main()
