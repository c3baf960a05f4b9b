# SPDX-License-Identifier: Apache-2.0
"""Names of the parameters of all nodes of the suite: written by docs/make_reference.py.

A robot's YAML file is given to every node; only with the names of all can each of them tell a
misspelled one. <device>, <lock> and <camera> stand for any name.
"""

_TEXT = {
    "arbiter": """
        <device>.arm_button <device>.axes <device>.best_effort <device>.deadman_button
        <device>.deadman_topic <device>.deadzone <device>.discard_button
        <device>.failure_button <device>.gripper_close_button <device>.gripper_open_button
        <device>.idle_ok <device>.kind <device>.motion_off <device>.motion_on
        <device>.preset <device>.priority <device>.repeat_limit <device>.scales
        <device>.slow <device>.start_button <device>.stop_button <device>.success_button
        <device>.timeout <device>.topic <device>.triggers <device>.turbo_button
        <lock>.priority <lock>.timeout <lock>.topic action_frame angular_scale arm_dwell
        axes command_frame command_rate console control_rate device_timeout devices
        ee_pose.tf episode_timeout fault_on_foreign_command follow_timeout gripper_interval
        gripper_threshold hold_timeout joint_latency joint_position_max joint_position_min
        joint_scale label_only linear_scale lock_step lock_step_timeout locks
        max_angular_acceleration max_angular_deceleration max_angular_speed
        max_joint_acceleration max_joint_deceleration max_joint_lead max_joint_velocity
        max_linear_acceleration max_linear_deceleration max_linear_jerk max_linear_speed
        minimum_length observation_timeout output policy_timeout pose_latency pose_timeout
        release_dwell require_operator speed_scale stall_timeout stop_topics
        trajectory_horizon workspace_max workspace_min
    """,
    "console": """
        address certificate_directory config_directory hosts input_gap max_picture_age
        namespaces operate port robot tls token_file
    """,
    "episode": """
        arm_dwell auto_start control_lost_timeout evaluation max_episodes max_steps pace
        reset_service reset_timeout settle_time wait_for_policy wait_for_recorder
    """,
    "gripper": """
        gripper_action gripper_closed gripper_command_timeout gripper_goal_timeout
        gripper_max_effort gripper_open gripper_output gripper_retry
    """,
    "learner": """
        algorithm axes cameras capacity checkpoint_directory checkpoint_every
        checkpoint_period control_rate device encoder encoder_channels encoder_embeddings
        encoder_features encoder_frozen encoder_pooling encoder_shared encoder_weights
        failure_reward features hidden image_directory image_height image_width
        imitation.batch_size imitation.learning_rate imitation.random_shift imitation.utd
        imitation.weight_decay joints keep_checkpoints keep_images label_scheme layer_norm
        longest_backlog pace preset prior_bags prior_capacity prior_episodes
        prior_into_online publish_every resume resume_bag rlpd.actor_average
        rlpd.actor_learning_rate rlpd.batch_size rlpd.clip_positive_values
        rlpd.critic_learning_rate rlpd.critic_weight_decay rlpd.discount rlpd.dropout
        rlpd.encoder_gradients rlpd.encoder_learning_rate rlpd.ensemble_size
        rlpd.entropy_in_target rlpd.hidden rlpd.initial_temperature rlpd.layer_norm
        rlpd.precision rlpd.prior_ratio rlpd.random_shift rlpd.refused_ratio rlpd.same_shift
        rlpd.subset_size rlpd.target_entropy rlpd.tau rlpd.temperature_learning_rate
        rlpd.utd robot_sampling robots run_directory seed state_dim state_offset state_scale
        tensorboard_directory torch_threads updates_per_step warmup_steps
    """,
    "observer": """
        base_frame black_frames black_level camera.<camera>.depth_range
        camera.<camera>.height camera.<camera>.roi camera.<camera>.transport
        camera.<camera>.width camera_max_age cameras control_rate ee_pose.tf features
        frozen_frames image_height image_width images joints lock_step max_age
        max_camera_skew
    """,
    "policy": """
        axes checkpoint deterministic encoder_weights hidden initial initial_scale learn
        seed state_dim
    """,
    "recorder": """
        bag_directory compression control_rate final_timeout join_capacity max_gap queue_mib
        required_free_mib split_mib split_seconds topics types
    """,
    "reset_by_planning": """
        acceleration_scale action_name arbiter_timeout attempts goal goal_angle_spread
        goal_angle_tolerance goal_frame goal_joint_spread goal_joint_tolerance goal_joints
        goal_link goal_orientation goal_position goal_position_spread
        goal_position_tolerance goal_positions goal_state motion_timeout move_group_name
        moveit_py_parameters pause_timeout pipeline planner planner_id planning_group
        planning_time require_hold seed stop_topics use_servo velocity_scale
    """,
    "servo_adapter": """
        arbiter_timeout base_frame call_timeout clear_after command_in_type command_type
        ee_pose.tf halt_dwell joints output_frame pause_deadline pause_delay pose_timeout
        relay retry scale_linear scale_rotational servo_interface servo_node_name
        standstill_after standstill_share status_timeout tool_frame tool_offset
    """,
    "show_workspace": """
        base_frame line_width wall_margin wall_thickness walls workspace_max workspace_min
    """,
    "sim_operator": """
        actor_bias actor_noise actor_noise_memory alpha arms arms_in_real_time beta
        control_rate delta joy_rate linear_scale lock_step mode probability seed strategy
        success_delay take_over_length
    """,
    "sim_robot": """
        base_frame board_spread camera_height camera_rate camera_upscale camera_width
        clearance command_in_type control_rate hide_success images incoming_command_timeout
        lock_step real_time_factor seed start_spread state_rate success_depth wall_clock
    """,
    "success_detector": """
        detector encoder_weights features in_take_overs threshold ticks
    """,
    "watchdog": """
        axes command_frame linger output pause_service rate start_timeout timeout
    """,
}
NAMES = {node: tuple(text.split()) for node, text in _TEXT.items()}
