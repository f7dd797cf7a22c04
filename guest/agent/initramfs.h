/*
 * The initial root file system, as trvmm makes it (vmm/initramfs.c) and the agent finds it (initramfs.c):
 *
 *   /init       the agent; that it runs under this name tells it where it is
 *   /plan       a line "ro|rw SOURCE TYPE INIT DATA": how to mount the root, and the agent there; then a line with the path of each module,
 *               in order
 *   /modules/   the modules, unpacked
 *   /dev, /root empty; /dev/console, for /init's messages
 */
#ifndef TRVMM_GUEST_AGENT_INITRAMFS_H
#define TRVMM_GUEST_AGENT_INITRAMFS_H

#define INITRAMFS_INIT "/init"
#define INITRAMFS_PLAN "/plan"
#define INITRAMFS_MODULES "/modules"
#define INITRAMFS_ROOT "/root"
#define INITRAMFS_PLAN_BYTES 16384u

#endif
