// SPDX-License-Identifier: GPL-2.0
// A module that makes the kernel report what it is told to: insmod faults.ko fault=oops.
// The logs beside it come from it; see README.
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/workqueue.h>

static char *fault = "";
module_param(fault, charp, 0);
static int seconds = 10;
module_param(seconds, int, 0);

static int zero, hundred = 100;
static volatile int sink;
static int table[4];
static int *rcu_pointer;
static DEFINE_MUTEX(a);
static DEFINE_MUTEX(b);
static DEFINE_SPINLOCK(lock);
static DECLARE_COMPLETION(never);

// The function that each report is about.
static noinline void culprit_oops(void) { WRITE_ONCE(*(int *)16, 1); }
static noinline void culprit_jump(void) { ((void (*)(void))16)(); }
static noinline void culprit_bug(void) { BUG(); }
static noinline void culprit_warn(void) { WARN(1, "a warning of faults.c\n"); }
static noinline void culprit_divide(void) { sink = hundred / READ_ONCE(zero); }

static noinline void culprit_gp(void)
{
#ifdef CONFIG_64BIT
	WRITE_ONCE(*(int *)0xdead000000000100UL, 1);
#endif
}

static noinline void culprit_unaligned(void)
{
#ifdef CONFIG_ARM
	u32 value, at = 1 + (u32)table;

	asm volatile("ldrex %0, [%1]" : "=r"(value) : "r"(at)); // never fixed up
	sink = value;
#endif
}

static noinline void culprit_spin(unsigned long until)
{
	while (time_before(jiffies, until))
		cpu_relax();
}

static noinline void culprit_spin_off(u64 us)
{
	for (; us; us--)
		udelay(1);
}

static noinline void culprit_sleep(void)
{
	spin_lock(&lock);
	msleep(1);
	spin_unlock(&lock);
}

static noinline void culprit_alloc(void)
{
	spin_lock(&lock);
	kfree(kmalloc(8, GFP_KERNEL));
	spin_unlock(&lock);
}

static noinline int culprit_hung(void *unused)
{
	wait_for_completion(&never);
	return 0;
}

static noinline void culprit_page(void)
{
	struct page *p = alloc_page(GFP_KERNEL);

	p->mapping = (void *)16;
	__free_page(p);
}

static noinline void culprit_list(void)
{
	struct list_head head, node;

	INIT_LIST_HEAD(&head);
	list_add(&node, &head);
	node.next = NULL;
	list_del(&node);
}

static noinline void culprit_uaf(void)
{
	volatile char *p = kmalloc(32, GFP_KERNEL);

	kfree((void *)p);
	sink = p[4];
}

static noinline void culprit_outside(void)
{
	volatile char *p = kmalloc(32, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(p);
	p[32 + READ_ONCE(zero)] = 1;
	kfree((void *)p);
}

static noinline void culprit_twice(void)
{
	char *p = kmalloc(32, GFP_KERNEL), *q = p;

	OPTIMIZER_HIDE_VAR(q);
	kfree(p);
	kfree(q);
}

static noinline void culprit_shift(void) { sink = 1 << READ_ONCE(hundred); }
static noinline void culprit_bounds(void) { sink = table[READ_ONCE(hundred) / 10]; }

static noinline void culprit_leak(void)
{
	sink = (int)(long)kmalloc(1000, GFP_KERNEL);
}

static noinline void culprit_order(void)
{
	mutex_lock(&b);
	mutex_lock(&a);
	mutex_unlock(&a);
	mutex_unlock(&b);
}

static noinline void culprit_recursion(void)
{
	struct mutex *one = kmalloc(2 * sizeof(*one), GFP_KERNEL);
	int i;

	for (i = 0; i < 2; i++) // of one class
		mutex_init(&one[i]);
	mutex_lock(&one[0]);
	mutex_lock(&one[1]);
	mutex_unlock(&one[1]);
	mutex_unlock(&one[0]);
	kfree(one);
}

static void lock_in_irq(void *unused)
{
	spin_lock(&lock);
	spin_unlock(&lock);
}

static noinline void culprit_irq(void)
{
	spin_lock(&lock);
	spin_unlock(&lock);
}

static noinline void culprit_unlock(void) { mutex_unlock(&a); }

static noinline void culprit_freed(void)
{
	struct mutex *m = kmalloc(sizeof(*m), GFP_KERNEL);

	mutex_init(m);
	mutex_lock(m);
	kfree(m);
}

static noinline void culprit_rcu(void) { sink = !rcu_dereference(rcu_pointer); }

static noinline void culprit_key(void)
{
	spinlock_t *l = kzalloc(sizeof(*l), GFP_KERNEL);

	spin_lock(l);
	spin_unlock(l);
}

static noinline void culprit_cpu(void) { sink = smp_processor_id(); }
static noinline void culprit_held(void) { mutex_lock(&a); }

static noinline int culprit_deep(int n)
{
	volatile char frame[512];

	frame[n & 511] = n;
	return culprit_deep(n + 1) + frame[(n + 1) & 511];
}

static void leaving(struct work_struct *w)
{
	mutex_lock(&b);
}
static DECLARE_WORK(leaving_work, leaving);

static int __init faults_init(void)
{
	if (!strcmp(fault, "oops"))
		culprit_oops();
	else if (!strcmp(fault, "jump"))
		culprit_jump();
	else if (!strcmp(fault, "bug"))
		culprit_bug();
	else if (!strcmp(fault, "warn"))
		culprit_warn();
	else if (!strcmp(fault, "divide"))
		culprit_divide();
	else if (!strcmp(fault, "gp"))
		culprit_gp();
	else if (!strcmp(fault, "unaligned"))
		culprit_unaligned();
	else if (!strcmp(fault, "soft")) {
		preempt_disable();
		culprit_spin(jiffies + seconds * HZ);
		preempt_enable();
	} else if (!strcmp(fault, "stall")) {
		rcu_read_lock();
		preempt_disable();
		culprit_spin(jiffies + seconds * HZ);
		preempt_enable();
		rcu_read_unlock();
	} else if (!strcmp(fault, "deaf")) {
		local_irq_disable();
		culprit_spin_off(seconds * 1000000ULL);
		local_irq_enable();
	} else if (!strcmp(fault, "sleep"))
		culprit_sleep();
	else if (!strcmp(fault, "alloc"))
		culprit_alloc();
	else if (!strcmp(fault, "hung"))
		kthread_run(culprit_hung, NULL, "sleeper");
	else if (!strcmp(fault, "page"))
		culprit_page();
	else if (!strcmp(fault, "list"))
		culprit_list();
	else if (!strcmp(fault, "uaf"))
		culprit_uaf();
	else if (!strcmp(fault, "sampled")) { // until KFENCE guards one of them
		int i;

		for (i = 0; i < seconds * 100; i++) {
			culprit_uaf();
			msleep(10);
		}
	} else if (!strcmp(fault, "outside"))
		culprit_outside();
	else if (!strcmp(fault, "twice"))
		culprit_twice();
	else if (!strcmp(fault, "shift"))
		culprit_shift();
	else if (!strcmp(fault, "bounds"))
		culprit_bounds();
	else if (!strcmp(fault, "leak"))
		culprit_leak();
	else if (!strcmp(fault, "order")) {
		mutex_lock(&a);
		mutex_lock(&b);
		mutex_unlock(&b);
		mutex_unlock(&a);
		culprit_order();
	} else if (!strcmp(fault, "recursion"))
		culprit_recursion();
	else if (!strcmp(fault, "irq")) {
		on_each_cpu(lock_in_irq, NULL, 1);
		culprit_irq();
	} else if (!strcmp(fault, "unlock"))
		culprit_unlock();
	else if (!strcmp(fault, "freed"))
		culprit_freed();
	else if (!strcmp(fault, "rcu"))
		culprit_rcu();
	else if (!strcmp(fault, "key"))
		culprit_key();
	else if (!strcmp(fault, "cpu"))
		culprit_cpu();
	else if (!strcmp(fault, "held"))
		culprit_held();
	else if (!strcmp(fault, "deep"))
		culprit_deep(0);
	else if (!strcmp(fault, "leaving")) {
		schedule_work(&leaving_work);
		flush_work(&leaving_work);
	} else
		return -EINVAL;
	return 0;
}
module_init(faults_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Faults to be reported");
