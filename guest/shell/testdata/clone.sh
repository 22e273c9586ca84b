#!/bin/bash
# Who makes processes: the function tracer on the functions that make and end
# them, with a stack at each. As scripts for Linux 4.19 on a Raspberry Pi do it.

echo 0 > /sys/kernel/debug/tracing/tracing_on
sleep 0.01
echo 0 > /sys/kernel/debug/tracing/events/enable
echo "all off"

# A function that does not run, so that function does not trace everything yet.
echo  secondary_start_kernel  > /sys/kernel/debug/tracing/set_ftrace_filter	
echo function > /sys/kernel/debug/tracing/current_tracer

echo sys_clone do_exit > /sys/kernel/debug/tracing/set_ftrace_filter
echo _do_fork copy_process* >> /sys/kernel/debug/tracing/set_ftrace_filter
echo search_binary_handler copy_process.part.5 >> /sys/kernel/debug/tracing/set_ftrace_filter
echo "functions set"

for event in sched/sched_switch sched/sched_process_fork sched/sched_process_exit signal; do
	echo 1 > /sys/kernel/debug/tracing/events/$event/enable
done

echo 1 > /sys/kernel/debug/tracing/options/func_stack_trace
echo 1 > /sys/kernel/debug/tracing/options/sym-offset
echo 1 > /sys/kernel/debug/tracing/tracing_on
echo "on"
