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
# Puts a file in the place of another, whole; if it cannot, that one stays.
put() {
    cat >"$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1" && return
    rm -f "$1.new"
    return 1
}
renew() {
    # D-Bus has one of its own where that is no link.
    tr -d - </proc/sys/kernel/random/uuid | put /etc/machine-id 444 || return
    [ -L /var/lib/dbus/machine-id ] || [ ! -e /var/lib/dbus/machine-id ] ||
        put /var/lib/dbus/machine-id 444 </etc/machine-id || return
    # What was logged before is under the old one.
    [ ! -d /run/systemd/system ] || systemctl --no-block try-restart systemd-journald || :
}
known=/var/lib/stead/instance
last=$(cat "$known" 2>/dev/null)
if [ -n "${INSTANCE_ID-}" ] && [ "$last" != "$INSTANCE_ID" ]; then
    # What could not be done is tried at the next start again.
    if [ -n "$last" ] && [ -s /etc/machine-id ] && ! renew; then
        echo "stead: it could not be given a machine-id of its own" >&2
    elif ! mkdir -p "${known%/*}" || ! echo "$INSTANCE_ID" | put "$known" 644; then
        echo "stead: $known could not be written" >&2
    fi
fi
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
