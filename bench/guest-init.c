/*
 * guest-init [COMMAND ARG...]: process 1 of the guests that QEMU starts. Runs /bin/true, or the words of the kernel's command line that
 * the kernel does not know (not behind `--`, where microvm would put its disks, too), says on the console how it ended, and resets the
 * machine, which ends QEMU (-no-reboot). As little as possible: what it does counts as QEMU's time.
 */
#include <stdio.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char *const nothing[] = {"/bin/true", NULL};
	char *const *command = argc > 1 ? argv + 1 : nothing;
	int status = -1;
	pid_t child = vfork();
	if (child == 0) {
		execv(command[0], command);
		_exit(127);
	}
	waitpid(child, &status, 0);
	dprintf(STDOUT_FILENO, "guest-init: status %d\n", status);
	sync();
	reboot(RB_AUTOBOOT);
	return 1;
}
