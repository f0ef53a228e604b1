# The machine's process 1: runs `command.sh`, shows its output at the second serial line, keeps its status.
cd /run/kernel
mkdir -p /lib/modules
read -r modules <modules && mount --bind "$modules" /lib/modules

# The project as it was; what is hidden in it (the Python environments, git) remains the host's.
read -r project <project
mkdir /run/host && mount --bind "$project" /run/host
mount -t tmpfs -o mode=755 project "$project"
tar -x -f project.tar -C /
for hidden in /run/host/.[a-z]*; do
    there=$project/${hidden##*/}
    if [ -L "$hidden" ]; then
        cp -d "$hidden" "$there"
    else
        if [ -d "$hidden" ]; then mkdir "$there"; else : >"$there"; fi
        mount --bind "$hidden" "$there"
    fi
done

while read -r tag folder; do
    mkdir -p "$folder"
    mount -t 9p -o trans=virtio,version=9p2000.L,access=any,msize=512000,cache=mmap "$tag" "$folder"
done <shared
hostname debian
ip link set lo up
stty -F /dev/ttyS1 raw -echo
ulimit -n 65536
# Open vSwitch (3.1) counts no processors in the first ten seconds after a start, and then loses all packets.
while read -r up _ </proc/uptime && [ "${up%.*}" -lt 11 ]; do sleep 1; done
echo >alive
# When process 1 of its namespace ends, the kernel ends whatever else was left running there.
{
    unshare --pid --fork --mount-proc /bin/sh /run/kernel/command.sh
    echo $? >status
} </dev/null 2>&1 | cat >/dev/ttyS1
sync
echo o >/proc/sysrq-trigger
exec sleep 1000
