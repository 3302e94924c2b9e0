# shellcheck shell=bash
# The namespaces of scripts/bench, and their removal. Sourced, after netns/lib.sh.
#
# Of the kernel's paths each has namespaces of its own; those of pearp are labs of netns/lab, which look the same:
#   client -- bridge lan -- router -- bridge wan -- server
# slirp4netns is a router by itself: client -- [slirp4netns] -- bridge wan -- server
# shellcheck disable=SC2034,SC2154 # some variables are used or set in scripts/bench only

readonly PREFIX=bench-$$
readonly CLIENT=198.51.100.10
readonly SERVER=203.0.113.80
readonly METER_PORT=5300
readonly IPERF_PORT=5201

work=''
declare -A client_of=() server_of=() # namespaces, by path

# ------------------------------------------------------------------------------------------------------ making

make_namespaces() { # NAME...
    local name
    for name in "$@"; do
        ip netns add "$PREFIX-$name" || die "cannot make namespace $PREFIX-$name: the reason stands above"
    done
}

# Gives a namespace a lab's settings, and feeds the ip commands on standard input to it.
configure() { # NAME
    { echo "link set lo up" && cat; } | furnish "$PREFIX-$1" || die "cannot set up namespace $PREFIX-$1"
}

bridge_node() { # NAME BRIDGE
    configure "$1" <<<"link add $2 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
link set $2 up"
}

# Prints ip commands for a bridge: a cable to DEVICE of a node.
cable() { # BRIDGE NODE DEVICE
    echo "link add to-${2##*-} type veth peer name $3 netns $PREFIX-$2"
    echo "link set to-${2##*-} master $1 up"
}

plug() { # DEVICE ADDRESS/LENGTH
    echo "addr add $2 dev $1"
    echo "link set $1 up"
}

# A router of the kernel between client and server.
set_up_kernel() { # PATH
    make_namespaces "$1"-{client,lan,router,wan,server}
    bridge_node "$1-lan" lan
    bridge_node "$1-wan" wan
    { cable lan "$1-client" eth0 && cable lan "$1-router" lan; } | configure "$1-lan"
    { cable wan "$1-router" wan && cable wan "$1-server" eth0; } | configure "$1-wan"
    { plug eth0 "$CLIENT/24" && echo "route add default via 198.51.100.1"; } | configure "$1-client"
    { plug lan 198.51.100.1/24 && plug wan 203.0.113.1/24; } | configure "$1-router"
    { plug eth0 "$SERVER/24" && echo "route add 198.51.100.0/24 via 203.0.113.1"; } | configure "$1-server"
    ip netns exec "$PREFIX-$1-router" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    client_of[$1]=$PREFIX-$1-client server_of[$1]=$PREFIX-$1-server
}

set_up_nat44() {
    set_up_kernel nat44
    ip netns exec "$PREFIX-nat44-router" nft -f - <<'NFT' || die "nftables cannot do NAT here: modprobe nft_masq"
table ip share {
    chain outward {
        type nat hook postrouting priority srcnat;
        oifname "wan" masquerade
    }
}
NFT
}

set_up_slirp() { # PATH MTU
    local ready=$work/$1.ready both
    make_namespaces "$1"-{client,host,wan,server}
    bridge_node "$1-wan" wan
    configure "$1-client" </dev/null
    { cable wan "$1-host" eth0 && cable wan "$1-server" eth0; } | configure "$1-wan"
    plug eth0 203.0.113.1/24 | configure "$1-host"
    plug eth0 "$SERVER/24" | configure "$1-server"
    mkfifo "$ready"
    exec {both}<>"$ready"
    setsid ip netns exec "$PREFIX-$1-host" slirp4netns --configure --mtu="$2" --ready-fd=3 \
        --netns-type=path "$NETNS_DIR/$PREFIX-$1-client" tap0 3>&"$both" {both}>&- >"$work/$1.log" 2>&1 &
    disown # its end is no news
    read -r -t 10 -n 1 -u "$both" || die "slirp4netns is not ready; it says: $(tail -n 3 "$work/$1.log")"
    exec {both}>&-
    client_of[$1]=$PREFIX-$1-client server_of[$1]=$PREFIX-$1-server
}

lab() { netns/lab --name "$PREFIX-$1" "${@:2}"; }

set_up_lab() { # on|off HOSTS
    # Static: a router that starts again has to ask who is there.
    lab "$1" up --static --hosts "$2" --offload "$1" >"$work/lab-$1.log" 2>&1 ||
        die "the lab with --offload $1 does not come up: $(tail -n 3 "$work/lab-$1.log")"
    client_of[router-$1]=$PREFIX-$1-legacy server_of[router-$1]=$PREFIX-$1-inet
}

set_up() { # PATH...
    local path name host servers
    for path in "$@"; do
        case $path in
        kernel) set_up_kernel kernel ;;
        nat44) set_up_nat44 ;;
        slirp) set_up_slirp slirp 1500 ;;
        slirp-jumbo) set_up_slirp slirp-jumbo 65520 ;;
        router-off) set_up_lab off 0 ;;
        router-on) set_up_lab on 3 ;;
        path) client_of[path]=$PREFIX-on-h1 server_of[path]=$PREFIX-on-inet ;; # in the same lab
        esac
    done
    mapfile -t servers < <(printf '%s\n' "${server_of[@]}" | sort -u)
    for name in "${servers[@]}"; do
        serve "$name" "$METER_PORT"
        start "$name" iperf3 --server --port "$IPERF_PORT"
        await "iperf3 in $name" listens "$name" "$IPERF_PORT"
    done
    # For first packets, which go to clients.
    serve "${client_of[kernel]}" "$METER_PORT"
    serve "${client_of[router-on]}" "$METER_PORT"
    for host in 1 2 3; do
        serve "$PREFIX-on-h$host" "$(port_of "$host")"
    done
}

# A port of the program part of a host of the lab.
port_of() { echo $(($1 * 4096 + 1000)); }

# Starts a program in a session of its own, that is, with a share of the processors of its own.
start() { # NAMESPACE COMMAND...
    setsid ip netns exec "$@" >>"$work/servers.log" 2>&1 </dev/null &
    disown
}

serve() { # NAMESPACE PORT
    start "$1" "$meter" serve "0.0.0.0:$2"
    await "the meter in $1" listens "$1" "$2"
}

listens() { # NAMESPACE PORT
    [[ -n $(ip netns exec "$1" ss -Hltn "( sport = :$2 )") ]]
}

await() { # WHAT COMMAND...
    local deadline=$((SECONDS + 10))
    until "${@:2}"; do
        ((SECONDS < deadline)) || die "$1 does not come; servers say: $(tail -n 3 "$work/servers.log")"
        sleep 0.05
    done
}

# The same one for every namespace, or the comparison is none.
congestion_control() {
    local name all
    all=$(for name in "${client_of[@]}" "${server_of[@]}"; do
        ip netns exec "$name" cat /proc/sys/net/ipv4/tcp_congestion_control
    done | sort -u)
    [[ $all != *$'\n'* ]] || die "namespaces have different congestion controls: ${all//$'\n'/, }"
    echo "$all"
}

# ---------------------------------------------------------------------------------------------------- priority

# Autogroups share the processors among sessions first, whatever the priorities in each.
prefer() { # PID...
    local pid
    [[ -n $priority ]] || return 0
    for pid in "$@"; do
        renice -n "$priority" -p "$pid" >/dev/null
        [[ ! -e /proc/$pid/autogroup ]] || echo "$priority" >"/proc/$pid/autogroup"
    done
}

prefer_all() {
    local pids
    own_namespaces
    mapfile -t pids < <(processes_inside)
    prefer "${pids[@]}"
}

# ---------------------------------------------------------------------------------------------------- removing

# Fills `namespaces` with those of this run, the labs' included.
own_namespaces() {
    local path
    namespaces=()
    for path in "$NETNS_DIR/$PREFIX"-*; do
        [[ ! -e $path ]] || namespaces+=("${path##*/}")
    done
}

# Ends all that runs in `namespaces`, and deletes them.
remove_namespaces() {
    local name pids
    ((${#namespaces[@]} > 0)) || return 0
    mapfile -t pids < <(processes_inside)
    signal KILL "${pids[@]}"
    await_empty "$((SECONDS + KILL_WAIT))" || say "processes do not end: $(processes_inside | tr '\n' ' ')"
    for name in "${namespaces[@]}"; do
        ip netns del "$name" || say "cannot delete namespace $name: ip netns del $name"
    done
}

clean_up() {
    local status=$?
    trap '' HUP INT TERM
    own_namespaces
    remove_namespaces
    [[ -z $work ]] || rm -rf -- "$work"
    exit "$status"
}

# What a run that was killed has left: namespaces and directories are called after its process.
remove_leftovers() {
    local path
    namespaces=()
    for path in "$NETNS_DIR"/bench-* "${TMPDIR:-/tmp}"/pearp-bench-*; do
        [[ $path =~ /(pearp-)?bench-([0-9]+)[-.] && ! -e /proc/${BASH_REMATCH[2]} ]] || continue
        if [[ -n ${BASH_REMATCH[1]} ]]; then rm -rf -- "$path"; else namespaces+=("${path##*/}"); fi
    done
    remove_namespaces
}
