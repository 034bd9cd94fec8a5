# shellcheck shell=bash disable=SC2154,SC2034 # it shares variables with whoever sources it
# The servers that are compared: who there is, how each is started, and how the generator speaks to it. Sourced from the project's folder by
# what measures. It reads $loadgen and $stentor (programs), $peers (where benches/peers/install puts things), $work (a folder for what
# a server writes), $server_cores, and of the question that is asked $topics (one, t1000 or all) and $subs.

# By these names they are asked for.
all=ceiling,stentor-raw,stentor,bun,tungstenite,ws,nats,nchan
everybody=$all,stentor-raw-2,stentor-2

# Whether a server can be asked a question: not all have patterns, or several topics on one connection.
can() {
  case $topics:${1%%:*} in
    one:* | t1000:bun | t1000:ws | *:ceiling | *:stentor | *:stentor-2 | *:nats) return 0 ;;
    *) return 1 ;;
  esac
}

# The flags in a server's name, as Stentor takes them (flags).
flags_of() {
  local pairs pair
  flags=()
  if [ "${1#*:}" = "$1" ]; then return 0; fi
  IFS=+ read -ra pairs <<<"${1#*:}"
  for pair in "${pairs[@]}"; do flags+=("--${pair%%=*}" "${pair#*=}"); done
}

server=''
stop() { if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; server=; fi; }

free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

# All connections come from this machine, which is few addresses: what one may have, and how often, is not the question here.
shares=(--max-connections-per-ip 0 --max-connects-per-ip 0 --max-commands-per-ip 0 --max-subscriptions-per-ip 0 --max-topics-per-ip 0)

# Starts Stentor with so many workers on as many of the servers' cores, and with further flags.
start_stentor() {
  local cores pin=none
  cores=$(cut -d , -f "1-$1" <<<"$server_cores")
  if [ "$(tr -cd , <<<"$cores" | wc -c)" -eq "$(($1 - 1))" ]; then pin=$cores; fi
  taskset -c "$cores" "$stentor" --listen "127.0.0.1:$port" --workers "$1" --pin "$pin" \
    --max-connections "$((subs < 14000 ? 15000 : subs + 100))" "${shares[@]}" "${@:2}" >"$work/log" 2>&1 &
}

# Starts a server pinned to its core; sets server, port and how the generator speaks to it (target).
start() {
  port=$(free_port)
  local pin=(taskset -c "${server_cores%%,*}") base=ws://127.0.0.1:$port
  target=("$base/sub/{topic}" --protocol generic --publish-url "$base/pub/{topic}")
  if [ "$topics" != one ]; then
    target=("$base/sub/{topics}" --protocol generic --publish-url "$base/pub" --publish-template '{topic} {payload}')
  fi
  local nginx=$peers/nchan/usr module kind=${1%%:*}
  case $kind in
    ceiling) "${pin[@]}" "$loadgen" ceiling --listen "127.0.0.1:$port" >"$work/log" 2>&1 & ;;
    stentor*)
      flags_of "$1"
      case $kind in *-2) start_stentor 2 "${flags[@]}" ;; *) start_stentor 1 "${flags[@]}" ;; esac
      case $kind in stentor-raw*) target=("$base" --protocol raw) ;; *) target=("$base") ;; esac ;;
    bun) "${pin[@]}" "$peers/bun" benches/peers/bun.js "$port" >"$work/log" 2>&1 & ;;
    ws) NODE_PATH=$peers/ws/node_modules "${pin[@]}" node benches/peers/ws.js "$port" >"$work/log" 2>&1 & ;;
    tungstenite) "${pin[@]}" "$peers/tungstenite" "$port" >"$work/log" 2>&1 & ;;
    nats)
      PORT=$port "${pin[@]}" "$peers/nats/usr/sbin/nats-server" -c benches/peers/nats.conf >"$work/log" 2>&1 &
      target=("$base" --protocol generic --binary --publish-url "$base" --greeting-template 'CONNECT {"verbose":false}\r\n'
        --subscribe-template 'SUB {topic} {id}\r\nPING\r\n' --unsubscribe-template 'UNSUB {id}\r\n' --ready PONG
        --publish-template 'PUB {topic} {bytes}\r\n{payload}\r\n' --answer 'PING=>PONG\r\n') ;;
    nchan)
      module=$nginx/lib/nginx/modules/ngx_nchan_module.so
      sed "s#PORT#$port#; s#MODULE#$module#; s#FOLDER#$PWD/$work#" benches/peers/nchan.conf >"$work/nginx.conf"
      "${pin[@]}" "$nginx/sbin/nginx" -p "$PWD/$work" -c "$PWD/$work/nginx.conf" >"$work/log" 2>&1 & ;;
  esac
  server=$!
  if [ "$topics" = all ]; then target+=(--subscribe-as '>'); fi
  for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      case $kind in stentor*) target+=(--server-metrics "http://127.0.0.1:$port/metrics") ;; esac
      return 0
    fi
    kill -0 "$server" 2>/dev/null || break
    sleep 0.05
  done
  why="it did not start: $(tail -n 3 "$work/log" | tr '\n' ' ')"
  stop
  return 1
}
