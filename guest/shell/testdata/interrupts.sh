#!/bin/sh
# Interrupts of a Raspberry Pi's SD card, from inside the tracing folder. No other
# machine has one.
set -e
cd ${TRACEFS:-/sys/kernel/debug/tracing}

echo 0 > tracing_on
echo nop > current_tracer
echo bcm2835_mmc_irq rpi_get_interrupt_info > set_ftrace_filter
echo ext4_file_open > set_graph_function
echo function_graph > current_tracer
echo irq:irq_handler_entry kmem:kmalloc_node sched:no_such_event > set_event
echo 1 > events/kmem/kmem_cache_alloc_node/enable
echo 1 > events/bcm2835_smi/enable
echo 1 > events/sched/no_such_event/enable
echo 1 > options/no_such_option
echo 'p:make _do_fork flags=%x0' > kprobe_events
echo 'p:save no_such_function' >> kprobe_events
echo 1 > tracing_on
echo done
