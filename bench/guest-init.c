/*
 * Process 1 of the guests that QEMU starts: runs /bin/true, says on the console how it ended, and resets the machine, which ends QEMU
 * (-no-reboot). As little as possible: what it does counts as QEMU's time.
 */
#include <stdio.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
	char *const command[] = {"/bin/true", NULL};
	int status = -1;
	pid_t child = vfork();
	if (child == 0) {
		execv(command[0], command);
		_exit(127);
	}
	waitpid(child, &status, 0);
	dprintf(STDOUT_FILENO, "guest-init: status %d\n", status);
	reboot(RB_AUTOBOOT);
	return 1;
}
