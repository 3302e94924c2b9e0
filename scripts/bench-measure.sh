# shellcheck shell=bash
# What scripts/bench measures. Sourced. Each function measures one thing once and writes samples, a line of JSON each.
# shellcheck disable=SC2154 # variables of scripts/bench

readonly LIMIT=60 # seconds for any one measurement
processors=$(nproc)
clock_ticks=$(getconf CLK_TCK)

sample() { # PATH METRIC VALUE [CORES]
    printf '{"path":"%s","metric":"%s","round":%d,"value":%s,"cores":%s}\n' "$1" "$2" "$round" "$3" "${4:-null}" \
        >>"$samples"
}

# -------------------------------------------------------------------------------------------------- processors

# Prints the time that all processors have been idle, in ms. What is not idle is busy: user and system time are taken
# by sampling, which misses work that begins with the tick, as paced work does.
idle_ms() {
    local idle iowait
    read -r _ _ _ _ idle iowait _ </proc/stat
    echo $(((idle + iowait) * 1000 / clock_ticks))
}

begin_busy() { busy_idle=$(idle_ms) busy_begin=${EPOCHREALTIME/[.,]/}; }

# Prints how many processors were busy since begin_busy.
end_busy() {
    local idle=$(($(idle_ms) - busy_idle)) wall=$(((${EPOCHREALTIME/[.,]/} - busy_begin) / 1000))
    awk -v n="$processors" -v idle="$idle" -v wall="$wall" \
        'BEGIN { busy = n - idle / wall; printf "%.2f", busy < 0 ? 0 : busy }'
}

busy_for() { # SECONDS
    begin_busy
    sleep "$1"
    end_busy
}

# --------------------------------------------------------------------------------------------- path after path

# Runs a command in the client's namespace; its output is in `result`, the processors in `cores`.
measured() { # PATH COMMAND...
    local try
    for try in 1 2; do
        begin_busy
        if result=$(timeout "$LIMIT" ip netns exec "${client_of[$1]}" "${@:2}" 2>"$work/error"); then
            cores=$(end_busy)
            return 0
        fi
        # A server may still be busy with the one before.
        ((try == 2)) || sleep 1
    done
    die "$1: ${*:2} failed: $(tail -n 3 "$work/error") $(jq -r '.error? // empty' <<<"$result" 2>/dev/null)"
}

field() { jq -er "$1" <<<"$result" || die "no $1 in what was measured: $result"; }

measure_tcp1() { measure_iperf "$@" --parallel 1; }
measure_tcp4() { measure_iperf "$@" --parallel 4; }

measure_iperf() { # PATH METRIC OPTION...
    local options=("${@:3}") value
    [[ $2 != *_down ]] || options+=(--reverse)
    measured "$1" iperf3 --client "$SERVER" --port "$IPERF_PORT" --time "$seconds" --json "${options[@]}"
    value=$(field '.end.sum_received.bits_per_second / 1e9')
    sample "$1" "$2" "$value" "$cores"
}

# Writes a sample with a part of `result`.
sample_field() { # PATH METRIC FILTER [CORES]
    local value
    value=$(field "$3")
    sample "$1" "$2" "$value" "${4:-}"
}

measure_udp() { # PATH
    measured "$1" "$meter" flood "$SERVER:$METER_PORT" "$short"
    sample_field "$1" udp '.received_pps / 1000' "$cores"
    sample_field "$1" udp_offered '.offered_pps / 1000'
    sample_field "$1" udp_lost .lost
}

measure_latency() { # PATH
    measured "$1" "$meter" latency "$SERVER:$METER_PORT" "$short"
    sample_field "$1" latency_p50 .p50_us "$cores"
    sample_field "$1" latency_p99 .p99_us
}

measure_connections() { # PATH
    measured "$1" "$meter" connect "$SERVER:$METER_PORT" "$short"
    sample_field "$1" connections .per_second "$cores"
}

# ------------------------------------------------------------------------------------------- what is pearp's own

restart_router() {
    lab on restart router >"$work/restart.log" 2>&1 || die "the router does not restart: $(<"$work/restart.log")"
    prefer "$(pid_of router)"
}

pid_of() { lab on status --json | jq -er --arg node "$1" '.nodes[] | select(.node == $node) | .pid'; }

# Datagrams from the server to hosts that the router does not know yet, and back.
first_packets() { # PATH ADDRESS:PORT...
    result=$(timeout "$LIMIT" ip netns exec "${server_of[$1]}" "$meter" first "${@:2}" 2>"$work/error") ||
        die "$1: no first packets to ${*:2}: $(tail -n 3 "$work/error")"
}

measure_first() {
    local host hosts=()
    # The kernel's own, to compare with.
    ip -n "$PREFIX-kernel-router" neigh flush dev lan
    first_packets kernel "$CLIENT:$METER_PORT"
    sample_field kernel first_added '.[0].added_us'
    # A router that has just started knows no host. It asks for all of them, and they answer at a random moment
    # within a second; who has a packet before that is asked for alone. An exchange with another host comes first,
    # so that the server's side is resolved; it does not count.
    for host in 1 2 3; do
        hosts+=("198.51.100.2:$(port_of "$host")")
    done
    restart_router
    first_packets router-on "$CLIENT:$METER_PORT" "${hosts[@]}"
    for host in 1 2 3; do
        sample_field router-on first_added ".[$host].added_us"
    done
}

# The router dies under a TCP transfer and a UDP stream from the server to a host, and is started again.
measure_restart() {
    local meter_pid begin down
    ip netns exec "${client_of[path]}" "$meter" gap "$SERVER:$METER_PORT" 4 >"$work/gap" 2>"$work/error" &
    meter_pid=$!
    prefer "$meter_pid"
    sleep 1
    begin=${EPOCHREALTIME/[.,]/}
    kill -9 "$(pid_of router)"
    restart_router
    down=$(((${EPOCHREALTIME/[.,]/} - begin) / 1000))
    wait "$meter_pid" || die "no transfer through a router that restarts: $(tail -n 3 "$work/error")"
    result=$(<"$work/gap")
    sample path restart_took_ms "$down"
    sample_field path restart_broken 'if .tcp_broken then 1 else 0 end'
    sample_field path restart_tcp_gap '.tcp_gap_s // 99'
    sample_field path restart_udp_gap .udp_gap_s
    sample_field path restart_udp_lost .udp_lost
    sample_field path restart_gbytes '.tcp_bytes / 1e9'
}

# Prints nanoseconds of processor, then how often the process went to sleep.
consumed() { # PID
    local task ran
    for task in "/proc/$1/task/"*; do
        read -r ran _ <"$task/schedstat"
        echo "$ran $(awk '/^voluntary/ { print $2 }' "$task/status")"
    done | awk '{ ran += $1; slept += $2 } END { printf "%d %d\n", ran, slept }'
}

measure_idle() { # SECONDS
    local node ran slept
    local -A pids=() before=()
    sleep 3 # what the restart has begun comes to its end
    for node in router h1; do
        pids[$node]=$(pid_of "$node")
        before[$node]=$(consumed "${pids[$node]}")
    done
    sleep "$1"
    for node in router h1; do
        read -r ran slept < <(consumed "${pids[$node]}")
        sample "$node" idle_ms "$(awk -v a="$ran" -v b="${before[$node]% *}" 'BEGIN { print (a - b) / 1e6 }')"
        sample "$node" idle_wakeups "$((slept - ${before[$node]#* }))"
    done
}

# ------------------------------------------------------------------------------------------------- the machine

# Prints where, when and how was measured, as JSON.
about() {
    jq -n '$ARGS.named' \
        --arg date "$(date -u +%FT%TZ)" \
        --arg version "$("$PEARP" --version)" \
        --arg commit "$(commit)" \
        --arg kernel "$(uname -r)" \
        --arg processor "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" \
        --argjson processors "$processors" \
        --argjson memory_mib "$(awk '/^MemTotal/ { printf "%d", $2 / 1024 }' /proc/meminfo)" \
        --arg iperf3 "$(package_version iperf3)" \
        --arg slirp4netns "$(package_version slirp4netns)" \
        --arg congestion "$congestion" \
        --arg offloads "$(lab on exec router pearp status --json | jq -r '[.links[].offload] | unique | join(" / ")')" \
        --argjson busy_before "$busy" \
        --arg nice "$priority" \
        --argjson rounds "$rounds" \
        --argjson seconds "$seconds" \
        --argjson idle_seconds "$idle_seconds" \
        --argjson took "$SECONDS"
}

package_version() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || echo unknown; }

commit() {
    local hash
    hash=$(git rev-parse --short HEAD 2>/dev/null) || { echo unknown && return; }
    if git diff --quiet HEAD 2>/dev/null; then echo "$hash"; else echo "$hash with changes"; fi
}
