// Calls makes children and a thread by each of the C library's functions, and
// prints their numbers as one JSON object.
#define _GNU_SOURCE
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

extern char **environ;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

// reap waits for a child, which a library function has made or has not.
static int reap(const char *what, pid_t pid)
{
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		fail(what);
	return pid;
}

static void *number(void *into)
{
	*(int *)into = syscall(SYS_gettid);
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc > 1)
		return 0; // what posix_spawn has started

	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	int forked = reap("fork", pid);

	pid = vfork();
	if (pid == 0)
		_exit(0);
	int vforked = reap("vfork", pid);

	char *child[] = {"calls", "child", NULL};
	if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, child, environ) != 0)
		fail("posix_spawn");
	int spawned = reap("posix_spawn", pid);

	pthread_t thread;
	int threaded = 0;
	if (pthread_create(&thread, NULL, number, &threaded) != 0 || pthread_join(thread, NULL) != 0)
		fail("pthread_create");

#ifdef __GLIBC__
	const char *library = "glibc ", *version = gnu_get_libc_version();
#else
	const char *library = "another C library", *version = "";
#endif
	printf("{\"library\":\"%s%s\",\"fork\":%d,\"vfork\":%d,\"spawn\":%d,\"thread\":%d}\n",
	       library, version, forked, vforked, spawned, threaded);
	return 0;
}
