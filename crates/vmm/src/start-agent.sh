#cloud-boothook
#!/bin/sh
# Starts the agent of stead, by which programs are run in this machine and it is ended in order. Run by cloud-init at
# every start. Without systemd it is a process like any other. A clone is another instance than the machine whose disk it
# has: cloud-init makes its SSH host keys anew, and this its machine-id.
set -u
seed=/run/stead/seed
for serial in /sys/block/*/serial; do
    [ "$(cat "$serial" 2>/dev/null)" = stead-seed ] || continue
    disk=${serial%/serial}
    mkdir -p "$seed" && mount -t iso9660 -o ro "/dev/${disk##*/}" "$seed" || exit 1
done
[ -e "$seed/stead-agent" ] || exit 1
known=/var/lib/stead/instance
last=$(cat "$known" 2>/dev/null)
if [ -n "${INSTANCE_ID-}" ] && [ "$last" != "$INSTANCE_ID" ]; then
    if [ -n "$last" ] && command -v systemd-machine-id-setup >/dev/null; then
        # It would take the one that D-Bus has.
        [ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
        rm -f /etc/machine-id
        systemd-machine-id-setup && systemctl --no-block try-restart systemd-journald
    fi
    mkdir -p "${known%/*}" && echo "$INSTANCE_ID" >"$known"
fi 2>/dev/null
for place in /usr/local/sbin /var/lib/stead; do
    mkdir -p "$place" 2>/dev/null || continue
    agent=$place/stead-agent
    if cmp -s "$seed/stead-agent" "$agent" ||
        { cp "$seed/stead-agent" "$agent.new" && chmod 755 "$agent.new" && mv "$agent.new" "$agent"; }; then
        break
    fi
    agent=
done 2>/dev/null
mounts=/run/stead/mounts.json
rm -f "$mounts"
[ ! -e "$seed/stead-mounts" ] || cp "$seed/stead-mounts" "$mounts"
umount "$seed"
[ -n "$agent" ] || exit 1
# Before anything that may need them is started. What is in the way is told when the keeper asks for them, too.
[ ! -e "$mounts" ] || "$agent" --mount "$mounts"
if [ -d /run/systemd/system ]; then
    start() {
        systemd-run --quiet --no-block --unit stead-agent --description "The agent of stead" \
            --property DefaultDependencies=no --property Conflicts=shutdown.target --property Before=shutdown.target \
            --property Restart=always --property OOMScoreAdjust=-900 --property TasksMax=infinity "$@" "$agent" --service
    }
    # If all of it was killed while it held file systems still, they go on. Before systemd 236 its next start sees to that.
    start --property ExecStopPost="$agent --go-on" || start
    exit
fi
"$agent" --service </dev/null >/dev/null 2>&1 &
