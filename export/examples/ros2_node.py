"""A ROS 2 node around an exported policy. Untested: no ROS 2 was at hand when it was written.

Copy it, `export/runtime.py`, `policy.onnx` and `critic.onnx` to one folder, and then:

    python3 ros2_node.py --ros-args -p policy:=policy.onnx -p critic:=critic.onnx

It listens to `observation` and `goal` (`std_msgs/Float32MultiArray`, in the order and the units of the model card),
publishes `action` once every control period and `reachability` (`std_msgs/Float32`) beside it. Until the first
observation and goal, and while the observation is older than three periods, it publishes nothing: let your actuators' own
watchdog stop them.
"""

import numpy as np
import rclpy
from rclpy.node import Node
from runtime import FaultError, Policy
from std_msgs.msg import Float32, Float32MultiArray

PERIODS = 3  # after which an observation is too old to act on


class PolicyNode(Node):
    """Asks the policy at the control period that it was trained at."""

    def __init__(self) -> None:
        """Opens the files that the node's parameters name."""
        super().__init__("crl_distill_policy")
        files = [
            self.declare_parameter(name, f"{name}.onnx").value for name in ("policy", "critic")
        ]
        self._policy = Policy(files[0], critic=files[1], on_fault="hold")
        self._period = self._policy.metadata["control_period"]
        self._observation: np.ndarray | None = None
        self._goal: np.ndarray | None = None
        self._heard = self.get_clock().now()
        self._action = self.create_publisher(Float32MultiArray, "action", 1)
        self._chance = self.create_publisher(Float32, "reachability", 1)
        self.create_subscription(Float32MultiArray, "observation", self._on_observation, 1)
        self.create_subscription(Float32MultiArray, "goal", self._on_goal, 1)
        self.create_timer(self._period, self._step)

    def _on_observation(self, message: Float32MultiArray) -> None:
        self._observation = np.array(message.data, np.float32)
        self._heard = self.get_clock().now()

    def _on_goal(self, message: Float32MultiArray) -> None:
        self._goal = np.array(message.data, np.float32)

    def _step(self) -> None:
        if self._observation is None or self._goal is None:
            return
        age = (self.get_clock().now() - self._heard).nanoseconds / 1e9
        if age > PERIODS * self._period:
            self.get_logger().warning(
                f"the observation is {age:.3f} s old", throttle_duration_sec=1
            )
            return
        held = self._policy.held
        try:
            action = self._policy(self._observation, self._goal)
        except FaultError as error:  # before the first safe action
            self.get_logger().error(str(error), throttle_duration_sec=1)
            return
        self._action.publish(Float32MultiArray(data=action.tolist()))
        if self._policy.held > held:
            self.get_logger().warning(self._policy.fault, throttle_duration_sec=1)
            return
        chance = self._policy.reachability(self._observation, self._goal)
        self._chance.publish(Float32(data=float(chance)))


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
