# shellcheck shell=bash
# What netns/lab is built from: messages, the lab's record on disk, locks, node processes, namespaces.
# Sourced by netns/lab, which explains the whole, and for its namespaces by scripts/bench; this file only defines
# functions and constants.
# shellcheck disable=SC2034,SC2154 # some variables are used or set in netns/lab only

readonly NETNS_DIR=/run/netns # where iproute2 keeps named namespaces

# Bounds, in seconds, on every wait. None of them is ever slept: each is the limit of a wait for a condition.
readonly LOCK_WAIT=120 # for another netns/lab command on the same lab
readonly READY_WAIT=10 # for the nodes of one `up` or `restart`; `up` adds a second per ten hosts
readonly TERM_WAIT=3   # between SIGTERM and SIGKILL
readonly KILL_WAIT=3   # after SIGKILL

# Set by locate_lab and read_record.
lab=            # the lab's name
pearp=          # absolute path of the program that nodes run
lab_lock=       # descriptor of the lab's lock while it is held
run_dir=        # everything the lab keeps on disk is below this
lab_dir=        # run_dir/labs/NAME, the record
nodes=()        # node names in the order of `status`
namespaces=()   # every namespace that the lab makes, the bridges' included
declare -A netns_of=() address_of=() mac_of=() ports_of=()
readonly LAB_OPTIONS=(hosts swarm psid offload mtu leaks static) # of `up`; each is in lab_NAME
lab_hosts='' lab_swarm=0 lab_psid='' lab_offload='' lab_mtu='' lab_leaks='' lab_static=''

# ---------------------------------------------------------------------------------------------------- messages

note() { printf 'lab: %s\n' "$*" >&2; }

fail() {
    note "$*"
    exit 1
}

usage_error() {
    note "$* (netns/lab --help shows how)"
    exit 2
}

# ------------------------------------------------------------------------------------------------- environment

require_root() {
    ((EUID == 0)) || fail "network namespaces need root: run this command as root, e.g. with sudo"
}

require_tools() {
    local tool package
    for tool in ip:iproute2 bridge:iproute2 flock:util-linux nsenter:util-linux setsid:util-linux \
        mkfifo:coreutils stat:coreutils tail:coreutils; do
        package=${tool#*:} tool=${tool%:*}
        type -P "$tool" >/dev/null || fail "the tool '$tool' is missing: apt-get install $package"
    done
}

require_tun() {
    [[ -c /dev/net/tun ]] ||
        fail "/dev/net/tun is missing: mkdir -p /dev/net && mknod /dev/net/tun c 10 200, or pass it into the container"
}

# The program that nodes run: $PEARP, else for `restart` the one this lab was brought up with, else the release
# build.
find_pearp() { # [again]
    pearp=${PEARP:-}
    if [[ -n $pearp ]]; then
        pearp=$(type -P -- "$pearp") || fail "PEARP=$PEARP is no program: unset it or name a pearp binary"
        pearp=$(realpath -s -- "$pearp")
    elif [[ ${1:-} == again && -L $lab_dir/bin/pearp ]]; then
        pearp=$(readlink -- "$lab_dir/bin/pearp")
    else
        pearp=$repository/target/release/pearp
    fi
    [[ -f $pearp && -x $pearp ]] || fail "$pearp is missing: cargo build --release (in $repository), or set PEARP"
}

# ------------------------------------------------------------------------------------------------- the record

# run_dir/labs/NAME/
#   config       NAME=VALUE for each of LAB_OPTIONS, as `up` was told
#   unfinished   there while `up` is at work, or if it was killed
#   dhcp.toml    the pools of the router, unless the lab is static
#   leases/      what the router gave, and what each host has
#   namespaces   one name per line: what `down` deletes, and nothing else
#   nodes        one node per line: node, namespace, address, link address, port ranges
#   NODE.lock    held (flock) by the node's process as long as it lives
#   NODE.pid     its process id, valid only while NODE.lock is held
#   NODE.log     what it wrote
#   bin/pearp    link to the program in use
# and beside it NAME.lock, held by the one `up`, `down` or `restart` that runs.

locate_lab() {
    lab=$1
    run_dir=$(realpath -ms -- "${PEARP_RUN:-/run/pearp}")
    lab_dir=$run_dir/labs/$lab
}

has_process() { [[ $1 == router || $1 == swarm || $1 =~ ^h[0-9]+$ ]]; }

read_record() {
    local key value node netns address mac ports
    nodes=() namespaces=() netns_of=() address_of=() mac_of=() ports_of=()
    lab_hosts='' lab_swarm=0 lab_psid='' lab_offload='' lab_mtu='' lab_leaks='' lab_static=''
    # `nodes` is the last file that `up` writes: without it nothing has been made yet.
    [[ -f $lab_dir/nodes ]] || return 0
    while IFS='=' read -r key value; do
        [[ " ${LAB_OPTIONS[*]} " != *" $key "* ]] || printf -v "lab_$key" '%s' "$value"
    done <"$lab_dir/config"
    mapfile -t namespaces <"$lab_dir/namespaces"
    while read -r node netns address mac ports; do
        nodes+=("$node")
        netns_of[$node]=$netns address_of[$node]=$address mac_of[$node]=$mac ports_of[$node]=$ports
    done <"$lab_dir/nodes"
}

write_record() {
    local node option value
    mkdir -p "$lab_dir/bin" "$lab_dir/leases" "$run_dir/control"
    : >"$lab_dir/unfinished"
    ln -sfn -- "$pearp" "$lab_dir/bin/pearp"
    for option in "${LAB_OPTIONS[@]}"; do
        value=lab_$option
        printf '%s=%s\n' "$option" "${!value}"
    done >"$lab_dir/config"
    [[ -n $lab_static ]] || write_pools >"$lab_dir/dhcp.toml"
    write_namespaces
    for node in "${nodes[@]}"; do
        printf '%s %s %s %s %s\n' "$node" "${netns_of[$node]}" "${address_of[$node]}" "${mac_of[$node]}" \
            "${ports_of[$node]}"
    done >"$lab_dir/nodes.new"
    mv "$lab_dir/nodes.new" "$lab_dir/nodes"
}

write_namespaces() {
    local netns
    for netns in "${namespaces[@]}"; do
        echo "$netns"
    done >"$lab_dir/namespaces"
}

# Deletes the record and the sockets of the lab's nodes; unlock_lab deletes the directories around them.
erase_record() {
    local netns
    for netns in "${namespaces[@]}"; do
        rm -f "$run_dir/control/$netns.sock"
    done
    rm -rf "$lab_dir"
}

# up: all that was recorded is there. partial: some of it. down: none.
lab_state() {
    local netns node expected=0 present=0
    for netns in "${namespaces[@]}"; do
        expected=$((expected + 1))
        [[ ! -e $NETNS_DIR/$netns ]] || present=$((present + 1))
    done
    for node in "${nodes[@]}"; do
        has_process "$node" || continue
        expected=$((expected + 1))
        ! is_alive "$node" || present=$((present + 1))
    done
    if ((present == 0)); then
        echo down
    elif ((present == expected)) && [[ ! -e $lab_dir/unfinished ]]; then
        echo up
    else
        echo partial
    fi
}

# ------------------------------------------------------------------------------------------------------- locks

# Serialises up, down and restart of one lab. The lock file goes away with the lab, so after the lock has been
# granted the file must still be the one at that path; else another command has deleted it and we try again.
# Children inherit the lock on purpose: what a killed `up` left running finishes before the next `down` starts.
lock_lab() {
    local path=$run_dir/labs/$lab.lock
    while :; do
        mkdir -p "$run_dir/labs" || fail "cannot make $run_dir/labs: set PEARP_RUN to a directory you can write to"
        # Another lab's `down` may remove the directory between the two steps.
        { exec {lab_lock}>"$path"; } 2>/dev/null || continue
        if ! flock -n "$lab_lock"; then
            [[ $1 == quietly ]] || note "waiting for another netns/lab command on lab $lab"
            flock -w "$LOCK_WAIT" "$lab_lock" ||
                fail "another netns/lab command still works on lab $lab after $LOCK_WAIT s: end it and try again"
        fi
        [[ ! /proc/self/fd/$lab_lock -ef $path ]] || return 0
        exec {lab_lock}>&-
    done
}

unlock_lab() {
    [[ -n $lab_lock ]] || return 0
    if [[ ! -d $lab_dir ]]; then
        rm -f "$run_dir/labs/$lab.lock"
        rmdir "$run_dir/labs" "$run_dir/control" "$run_dir" 2>/dev/null || true
    fi
    exec {lab_lock}>&-
    lab_lock=
}

# ---------------------------------------------------------------------------------------------- node processes

# Prints the pools of the lab's DHCP server. Each host of the lab has a reservation, so that hN has the Nth set of its
# address, as in a static lab; whoever else asks gets one of the others.
write_pools() {
    local node address addresses first last psid sets
    mapfile -t addresses < <(shared_addresses)
    printf 'lease = 3600\n'
    for address in "${addresses[@]}"; do
        printf '\n[[shared]]\naddresses = "%s"\nscheme = [%s]\n' "$address" "${lab_psid/,/, }"
    done
    # For those who cannot share.
    last=${addresses[-1]##*.}
    first=$((last < 100 ? 100 : last + 1))
    ((first > 254)) || printf '\n[[whole]]\naddresses = "%s"\n' "$LAN_PREFIX.$first-$LAN_PREFIX.254"
    psid=$(first_psid "$lab_psid") sets=$(hosts_per_address "$lab_psid")
    for node in "${nodes[@]}"; do
        [[ $node =~ ^h[0-9]+$ ]] || continue
        # RFC 4361: type 255, IAID 0, DUID-LL.
        printf '\n[[reservation]] # %s\nclient = "ff:00:00:00:00:00:03:00:01:%s"\naddress = "%s"\npsid = %d\n' \
            "$node" "${mac_of[$node]}" "${address_of[$node]}" "$((psid + (${node#h} - 1) % sets))"
    done
}

# A node lives as long as somebody holds the lock that its process was started with. Unlike a process id that is
# never reused, and a zombie holds none. The shared mode keeps two observers from seeing each other.
is_alive() {
    local lock=$lab_dir/$1.lock
    [[ -e $lock ]] && ! flock -sn 9 9<"$lock" 2>/dev/null
}

# Prints the process id of a live node, else nothing.
node_pid() {
    if is_alive "$1" && [[ -s $lab_dir/$1.pid ]]; then
        printf '%s' "$(<"$lab_dir/$1.pid")"
    fi
}

node_command() { # fills `command` with what NODE runs
    local node=$1 addresses=() address
    case $node in
    router)
        mapfile -t addresses < <(shared_addresses)
        command=(router
            --lan "$lab-lan:router,address=$ROUTER_LAN/24,mac=${mac_of[router]}"
            --outside "$lab-wan:router,address=$ROUTER_OUTSIDE/24,mac=$ROUTER_OUTSIDE_MAC")
        if [[ -z $lab_static ]]; then
            command+=(--dhcp "$lab_dir/dhcp.toml" --lease-file "$lab_dir/leases/router")
            addresses=()
        fi
        for address in "${addresses[@]}"; do
            command+=(--shared "$address=$lab_psid")
        done
        ;;
    swarm)
        mapfile -t addresses < <(shared_by "$((lab_hosts + 1))" "$((lab_hosts + lab_swarm))" | uniq)
        command=(swarm --lan "$lab-lan:swarm" --mac "${mac_of[swarm]}" --gateway "$ROUTER_LAN"
            --hosts "$lab_swarm" --psid "$lab_psid" --skip "$((lab_hosts % $(hosts_per_address "$lab_psid")))")
        for address in "${addresses[@]}"; do
            command+=(--address "$address/24")
        done
        ;;
    h*)
        command=(host --name "$node" --lan "$lab-lan:$node" --mac "${mac_of[$node]}" --tun "$TUN"
            --hook "$here/lease-hook" --leaks "$lab_leaks")
        if [[ -n $lab_static ]]; then
            command+=(--address "${address_of[$node]}/24" --gateway "$ROUTER_LAN"
                --psid "$lab_psid,$(psid_of "${node#h}")")
        else
            command+=(--dhcp --lease-file "$lab_dir/leases/$node")
        fi
        ;;
    esac
    command+=(--offload "$lab_offload" --mtu "$lab_mtu" --ready-fd 3)
}

# One pipe per `up` or `restart` tells when nodes are ready. Opening it read-write first keeps the next two opens
# from blocking; afterwards the two ends are apart, so that the reader sees the end of file when no node is left.
open_ready_pipe() {
    local path=$lab_dir/ready both
    rm -f "$path"
    mkfifo "$path"
    # shellcheck disable=SC2094 # a pipe: reading and writing it is its purpose
    exec {both}<>"$path" {ready_read}<"$path" {ready_write}>"$path" {both}>&-
    rm -f "$path"
}

# Starts NODE detached. It inherits three things: the ready pipe as descriptor 3, its own lock as 8, its log. Any
# other descriptor, the caller's included, would stay open as long as the node lives.
start_node() {
    local node=$1 command fd
    node_command "$node"
    (
        cd /
        exec </dev/null >>"$lab_dir/$node.log" 2>&1 3>&"$ready_write" 8>"$lab_dir/$node.lock"
        flock -w "$KILL_WAIT" 8 || fail "$node is locked by another process"
        printf '%s\n' "$BASHPID" >"$lab_dir/$node.pid"
        # Only now, as the lab's lock is among them: whoever gets it next finds the node's lock taken.
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            ((fd <= 3 || fd == 8 || fd == 255)) || exec {fd}>&- # 255: where bash reads this script, closed on exec
        done
        # None of these programs forks into the background (setsid would, were this a group leader), so the recorded
        # process id stays right. The attendant of a host closes the lock and the pipe. A shell without job control
        # starts children in the background with SIGINT and SIGQUIT ignored.
        exec env --default-signal=INT,QUIT "PEARP_RUN=$run_dir" \
            setsid ip netns exec "${netns_of[$node]}" "$pearp" "${command[@]}"
    ) &
}

# Waits until all NODEs have said "ready"; else shows why not and fails.
await_ready() {
    local limit=$1 word node remaining deadline missing=0
    shift
    local -A waiting=()
    for node in "$@"; do
        waiting[$node]=1
    done
    exec {ready_write}>&-
    deadline=$((SECONDS + limit))
    while ((${#waiting[@]} > 0 && (remaining = deadline - SECONDS) > 0)); do
        read -r -t "$remaining" word node <&"$ready_read" || break
        [[ $word != ready || -z $node ]] || unset 'waiting[$node]'
    done
    exec {ready_read}<&-
    for node in "$@"; do
        if [[ -n ${waiting[$node]:-} ]] || ! is_alive "$node"; then
            missing=$((missing + 1))
            ((missing <= 3)) || continue
            if is_alive "$node"; then
                note "$node did not become ready within $limit s; its log ends:"
            else
                note "$node did not start; its log ends:"
            fi
            tail -n 12 "$lab_dir/$node.log" 2>/dev/null | sed "s/^/    $node: /" >&2
        fi
    done
    ((missing == 0))
}

# Ends NODE's process: SIGTERM, then SIGKILL. Nothing to do if it is dead already.
end_node() {
    local node=$1 signal pid
    for signal in "TERM $TERM_WAIT" "KILL $KILL_WAIT"; do
        pid=$(node_pid "$node")
        [[ -n $pid ]] || return 0
        kill "-${signal% *}" "$pid" 2>/dev/null || true
        ! flock -w "${signal#* }" 9 9<"$lab_dir/$node.lock" || return 0
    done
    fail "process $pid of $node does not end: look at it with ps, then try again"
}

# -------------------------------------------------------------------------------------------------- namespaces

# Prints the ids of all processes in the lab's namespaces. Zombies have no namespace and are not among them.
processes_inside() {
    local netns id path paths=()
    local -A inside=()
    for netns in "${namespaces[@]}"; do
        [[ ! -e $NETNS_DIR/$netns ]] || paths+=("$NETNS_DIR/$netns")
    done
    ((${#paths[@]} > 0)) || return 0
    while read -r id; do
        inside[$id]=1
    done < <(stat -L -c %d:%i "${paths[@]}")
    while read -r id path; do
        [[ -z ${inside[$id]:-} ]] || { path=${path#/proc/} && echo "${path%%/*}"; }
    done < <(stat -L -c '%d:%i %n' /proc/[0-9]*/ns/net 2>/dev/null)
}

# `down` kills what runs inside, so it must not run there itself.
refuse_inside() {
    local own netns
    own=$(stat -L -c %d:%i /proc/self/ns/net)
    for netns in "${namespaces[@]}"; do
        if [[ -e $NETNS_DIR/$netns && $(stat -L -c %d:%i "$NETNS_DIR/$netns") == "$own" ]]; then
            fail "this shell is inside lab $lab, in $netns: leave it and run the command again"
        fi
    done
}

# Makes all namespaces in one go. If one of them has come into being in the meantime it is somebody else's: it
# leaves the record, so that cleaning up does not touch it. So do those after it, which were not reached.
make_namespaces() {
    local message made=0
    message=$(printf 'netns add %s\n' "${namespaces[@]}" | ip -batch - 2>&1) && return 0
    [[ ! $message =~ Command\ failed\ -:([0-9]+) ]] || made=${BASH_REMATCH[1]}
    # Failed for another reason it may be half made.
    [[ $message != *'File exists'* ]] || made=$((made - 1))
    namespaces=("${namespaces[@]:0:made}")
    write_namespaces
    fail "cannot make the namespaces: ${message%%$'\n'*}"
}

# Gives one namespace its kernel settings, then feeds the ip commands on standard input to it. Runs in one process
# after the other without forks in between, as an `up` of 50 hosts does this 54 times.
furnish() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    nsenter --net="$NETNS_DIR/$1" sh -euc '
        put() { [ ! -e "/proc/sys/net/$1" ] || echo "$2" >"/proc/sys/net/$1"; }
        put ipv6/conf/all/disable_ipv6 1     # no router solicitations and the like in captures
        put ipv6/conf/default/disable_ipv6 1
        # Equal results everywhere, whatever the machine prefers. A machine that does not allow cubic in
        # namespaces still has reno.
        put ipv4/tcp_congestion_control cubic 2>/dev/null || put ipv4/tcp_congestion_control reno
        put ipv4/ip_local_port_range "32768 60999"
        put bridge/bridge-nf-call-iptables 0  # else a firewall of the machine could filter inside bridges
        put bridge/bridge-nf-call-arptables 0
        exec ip -batch -'
}

# Deletes all that the record names, whatever state it is in. Holds for a complete lab, for what an interrupted
# `up` left, and for one whose processes are gone.
tear_down() {
    local pids=() node netns deadline pid
    # An `up` that was killed may have left a node that is not in its namespace yet: its lock shows it.
    for node in "${nodes[@]}"; do
        ! has_process "$node" || pids+=("$(node_pid "$node")")
    done
    signal TERM "${pids[@]}"
    mapfile -t pids < <(processes_inside)
    signal TERM "${pids[@]}"
    signal HUP "${pids[@]}" # interactive shells ignore SIGTERM
    deadline=$((SECONDS + TERM_WAIT))
    for node in "${nodes[@]}"; do
        [[ ! -e $lab_dir/$node.lock ]] || ((SECONDS >= deadline)) ||
            flock -w "$((deadline - SECONDS))" 9 9<"$lab_dir/$node.lock" || true
    done
    await_empty "$deadline" || true
    for node in "${nodes[@]}"; do
        ! has_process "$node" || signal KILL "$(node_pid "$node")"
    done
    mapfile -t pids < <(processes_inside)
    signal KILL "${pids[@]}"
    await_empty "$((SECONDS + KILL_WAIT))" ||
        fail "processes in lab $lab do not end ($(processes_inside | tr '\n' ' ')): look at them with ps, then run down again"

    for netns in "${namespaces[@]}"; do
        [[ ! -e $NETNS_DIR/$netns ]] || echo "netns del $netns"
    done | ip -batch - || fail "cannot delete the namespaces of lab $lab: run down again"
    erase_record
}

# Sends a signal to each process given; empty words are skipped, processes that are gone do not matter.
signal() {
    local name=$1 pid
    shift
    for pid in "$@"; do
        [[ -z $pid ]] || kill "-$name" "$pid" 2>/dev/null || true
    done
}

# Waits until no process is inside the lab's namespaces. There is no event for that: it looks again and again.
await_empty() {
    local deadline=$1
    while [[ -n $(processes_inside) ]]; do
        ((SECONDS < deadline)) || return 1
    done
}
