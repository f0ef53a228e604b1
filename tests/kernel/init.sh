#!/bin/busybox sh
# The machine's first program: the host's files, read-only and with our own writes in memory, become its root.
b=/bin/busybox
$b mkdir -p /proc /lower /upper /root
for module in /modules/*; do $b insmod "$module"; done
options=trans=virtio,version=9p2000.L,access=any,msize=512000
$b mount -t 9p -o ro,cache=loose,$options root /lower
$b mount -t tmpfs upper /upper
$b mkdir /upper/files /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /root

while read -r type options folder; do
    $b mkdir -p "/root$folder"
    $b mount -t "$type" -o "$options" "$type" "/root$folder"
done <<MOUNTS
proc rw /proc
sysfs rw /sys
devtmpfs rw /dev
devpts gid=5,mode=620,ptmxmode=666 /dev/pts
tmpfs mode=1777 /dev/shm
tmpfs mode=1777 /tmp
tmpfs mode=755 /run
MOUNTS
$b mkdir /root/run/lock /root/run/kernel /root/dev/net
[ -e /root/dev/net/tun ] || $b mknod -m 666 /root/dev/net/tun c 10 200
for stream in 0:in 1:out 2:err; do
    $b ln -s /proc/self/fd/${stream%:*} /root/dev/std${stream#*:}
done
$b ln -s /proc/self/fd /root/dev/fd
$b mount -t 9p -o rw,cache=none,$options exchange /root/run/kernel
exec $b switch_root /root /bin/sh /run/kernel/session.sh
