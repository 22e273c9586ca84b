#!/bin/sh
# Who wakes whom. The names come from a variable and a here-document.
T=/sys/kernel/debug/tracing
WAKE="schedule ttwu_do_wakeup"
echo $WAKE > $T/set_ftrace_filter
cat >> $T/set_ftrace_filter <<END
__vfs_read
__vfs_write sys_sigreturn
!schedule
END
echo 'do_timer:stacktrace' >> $T/set_ftrace_filter
printf '%s\n' insert_work kmem_cache_alloc_trace > $T/set_ftrace_notrace
echo > $T/set_graph_function
echo no_such_tracer > $T/current_tracer
