# boot.sh LOWER WORK CGROUP: systemd of the tree LOWER as the first process of namespaces of its own, over a
# writable layer in WORK, below the control group CGROUP. It ends with its standard input.
set -e
lower=$1 work=$2 cgroup=$3
echo 0 >"$cgroup/cgroup.procs"
unshare --mount --pid --fork --kill-child=KILL --cgroup --net --uts --ipc /bin/sh -ec '
lower=$1 work=$2
mount --make-rprivate /
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay -o "lowerdir=$lower,upperdir=$work/upper,workdir=$work/work" overlay "$work/root"
cd "$work/root"
rm -f etc/fstab
echo 0123456789abcdef0123456789abcdef >etc/machine-id
mkdir -p proc sys run tmp dev old extra
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do
  : >"dev/$node"
  mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ip link set lo up
pivot_root . old
umount -l /old
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=console --log-level=notice --show-status=no --unit=multi-user.target </dev/null
' boot "$lower" "$work" </dev/null &
read -r _ || true
kill -KILL $!
wait
