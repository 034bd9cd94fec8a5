# shellcheck shell=bash disable=SC2154,SC2034 # it shares variables with whoever sources it
# The servers that are compared: who there is, how each is started, and how the generator speaks to it. Sourced from the project's folder by
# what measures. It reads $loadgen and $stentor (programs), $peers (where benches/peers/install puts things), $work (a folder for what
# a server writes), $server_cores, and of the question that is asked $topics (one, t1000 or all), $subs, and $compress: empty, or how bun, ws, nats and
# nchan compress (shared, or of bun dedicated).

. benches/peers/versions.sh

# By these names they are asked for. What one needs is in the file that `configuration_of` names, and where its settings come from.
all=bare-loop,stentor-raw,stentor,bun,tungstenite,ws,nats,nchan
everybody=$all,stentor-raw-2,stentor-2,fastwebsockets,gobwas,centrifugo,mosquitto,socketio
# With TLS; nginx and haproxy end it in front of Stentor, on the same core.
everybody+=,stentor-tls,stentor-raw-tls,bun-tls,ws-tls,tungstenite-tls,nats-tls,nginx-tls,haproxy-tls

# What a server is, whatever its lane and its flags.
kind_of() {
  local kind=${1%%:*}
  echo "${kind%-tls}"
}

# Of servers' names, a line each, those of benches/peers/install.
peers_of() { sed 's/:.*//; s/-tls$//' | grep -vE '^(bare-loop|stentor.*)$' | sort -u; }

# Whether a server can be asked a question: not all have patterns, or several topics on one connection.
can() {
  case $topics:$(kind_of "$1") in
    one:* | *:bare-loop | *:stentor | *:stentor-2 | *:nginx | *:haproxy | *:nats | *:mosquitto) return 0 ;;
    t1000:bun | t1000:ws | t1000:gobwas | t1000:centrifugo | t1000:socketio) return 0 ;;
    *) return 1 ;;
  esac
}

# The file that says how a server is run; none for ours, whose flags are below.
configuration_of() {
  local kind file
  kind=$(kind_of "$1") file=benches/peers/$kind
  case $kind in
    bun | ws | socketio) file+=.js ;;
    nats | nchan | mosquitto | nginx) file+=.conf ;;
    haproxy) file+=.cfg ;;
    centrifugo) file+=.toml ;;
    tungstenite | fastwebsockets) file+=/src/main.rs ;;
    gobwas) file+=/main.go ;;
    *) return 0 ;;
  esac
  echo "$file"
}

# What a server says that it is, in one line; of a library, what its lock file says.
version_of() {
  local kind program
  kind=$(kind_of "$1")
  program=$(program_of "$kind")
  case $kind in
    bare-loop) "$loadgen" --version ;;
    nginx | haproxy) "$program" -v 2>&1 | head -n 1 ;;
    stentor*) "$stentor" --version ;;
    bun) echo "Bun $("$program" --version)" ;;
    ws) echo "$(module_of ws ws), Node $("$program" --version)" ;;
    socketio) echo "$(module_of socketio socket.io) on $(module_of socketio ws), Node $("$program" --version)" ;;
    tungstenite | fastwebsockets) echo "$(locked_in "$kind" "$kind"), $(locked_in "$kind" tokio)" ;;
    gobwas | centrifugo) "$program" version ;;
    nats) "$program" --version ;;
    nchan) echo "Nchan ${version[nchan]#*:} in $("$program" -v 2>&1)" ;;
    mosquitto) LD_LIBRARY_PATH=$(mosquitto_libraries) "$program" -h | sed -n 1p || true ;;
  esac
}

# Notes in a file what a server says that it is, unless that is there.
note_version() { # NAME FILE
  local kind line
  kind=$(kind_of "$1")
  if [[ " ${noted:-} " == *" $kind "* ]]; then return 0; fi
  noted+=" $kind"
  line="$kind	$(version_of "$kind" 2>/dev/null || echo 'not installed')"
  grep -qxF "$line" "$2" 2>/dev/null || echo "$line" >>"$2"
}

# What was noted, as a table.
versions_table() { # FILE
  local kind said file
  if [ ! -s "$1" ]; then return 0; fi
  printf '| server | what it says that it is | how it is run |\n| --- | --- | --- |\n'
  while IFS=$'\t' read -r kind said; do
    file=$(configuration_of "$kind")
    echo "| $kind | $said | ${file:+[$file](../../$file)} |"
  done <"$1"
  echo
}

# A package of npm, and a crate in a lock file, with their versions.
module_of() { sed -n "s/^  \"version\": \"\(.*\)\".*/$2 \1/p" "$(home "$1")/node_modules/$2/package.json"; }
locked_in() { sed -n "/^name = \"$2\"/{n;s/.*\"\(.*\)\"/$2 \1/p}" "benches/peers/$1/Cargo.lock"; }

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

# Behind a proxy, whoever asks for metrics shows that it may.
export STENTOR_ADMIN_TOKEN=${STENTOR_ADMIN_TOKEN:-$(head -c 24 /dev/urandom | base64)}

# Starts Stentor with so many workers on as many of the servers' cores, and with further flags. It listens as `listens` says.
start_stentor() {
  local cores pin=none
  cores=$(cut -d , -f "1-$1" <<<"$server_cores")
  if [ "$(tr -cd , <<<"$cores" | wc -c)" -eq "$(($1 - 1))" ]; then pin=$cores; fi
  taskset -c "$cores" "$stentor" "${listens[@]}" --workers "$1" --pin "$pin" \
    --max-connections "$((subs < 14000 ? 15000 : subs + 100))" "${shares[@]}" "${@:2}" >"$work/log" 2>&1 &
}

mosquitto_libraries() { echo "$(home mosquitto)/usr/lib/x86_64-linux-gnu"; }

# Starts Stentor in clear, and what ends TLS in front of it, on one core. The two are children of a shell, whose processor time and memory count as the
# server's with theirs.
start_behind() { # KIND, COMMAND that runs it …
  local behind configuration=$PWD/$work/$1.conf
  behind=$(free_port)
  sed "s#FRONT#$port#; s#BEHIND#$behind#; s#FOLDER#$PWD/$work#" "$(configuration_of "$1")" >"$configuration"
  cat "$work/certificates/certificate.pem" "$work/certificates/key.pem" >"$work/certificates/both.pem"
  (
    taskset --cpu-list --pid "${server_cores%%,*}" "$BASHPID" >/dev/null
    listens=(--listen "127.0.0.1:$behind")
    start_stentor 1 --trusted-proxy 127.0.0.1 --anonymous-publish
    backend=$!
    "${@:2}" "$configuration" >>"$work/log" 2>&1 &
    proxy=$!
    trap 'kill "$backend" "$proxy" 2>/dev/null' TERM
    wait -n "$backend" "$proxy"
    kill "$backend" "$proxy" 2>/dev/null
    wait
  ) &
}

# Starts a server pinned to its core; sets server, port and how the generator speaks to it (target).
start() {
  port=$(free_port)
  local kind base=ws://127.0.0.1:$port program listens=(--listen "127.0.0.1:$port") pair=() web=http
  kind=$(kind_of "$1")
  program=$(program_of "$kind")
  if [[ ${1%%:*} == *-tls ]]; then
    local folder=$PWD/$work/certificates
    [ -e "$folder/certificate.pem" ] || make_certificates "$folder" || return 1
    base=wss://127.0.0.1:$port web=https pair=("$folder/certificate.pem" "$folder/key.pem")
    listens=(--listen none --tls-listen "127.0.0.1:$port" --tls-cert "${pair[0]}" --tls-key "${pair[1]}")
  fi
  # On one core, what is written in Go has one thread that runs it.
  local run=(env GOMAXPROCS=1 taskset -c "${server_cores%%,*}" "$program")
  target=("$base/sub/{topic}" --protocol generic --publish-url "$base/pub/{topic}")
  if [ "$topics" != one ]; then
    target=("$base/sub/{topics}" --protocol generic --publish-url "$base/pub" --publish-template '{topic} {payload}')
  fi
  case $kind in
    bare-loop) taskset -c "${server_cores%%,*}" "$loadgen" bare-loop --listen "127.0.0.1:$port" >"$work/log" 2>&1 & ;;
    stentor*)
      flags_of "$1"
      case $kind in *-2) start_stentor 2 "${flags[@]}" ;; *) start_stentor 1 "${flags[@]}" ;; esac
      case $kind in stentor-raw*) target=("$base" --protocol raw) ;; *) target=("$base") ;; esac ;;
    nginx) start_behind nginx "${run[@]}" -p "$PWD/$work" -c ;;
    haproxy) start_behind haproxy "${run[@]}" -db -f ;;
    bun) COMPRESS=${compress:-} "${run[@]}" benches/peers/bun.js "$port" "${pair[@]}" >"$work/log" 2>&1 & ;;
    ws | socketio) COMPRESS=${compress:-} NODE_ENV=production NODE_PATH=$(home "$kind")/node_modules "${run[@]}" "benches/peers/$kind.js" "$port" "${pair[@]}" >"$work/log" 2>&1 & ;;
    tungstenite | fastwebsockets | gobwas) "${run[@]}" "$port" "${pair[@]}" >"$work/log" 2>&1 & ;;
    nats) PORT=$port CERT=${pair[0]:-} KEY=${pair[1]:-} "${run[@]}" -c "benches/peers/nats${pair:+-tls}${compress:+-deflate}.conf" >"$work/log" 2>&1 & ;;
    centrifugo) CENTRIFUGO_HTTP_SERVER_PORT=$port "${run[@]}" -c benches/peers/centrifugo.toml >"$work/log" 2>&1 & ;;
    nchan)
      sed "s#PORT#$port#; s#MODULE#$(home nchan)/usr/lib/nginx/modules/ngx_nchan_module.so#; s#FOLDER#$PWD/$work#" "benches/peers/nchan${compress:+-deflate}.conf" >"$work/nginx.conf"
      "${run[@]}" -p "$PWD/$work" -c "$PWD/$work/nginx.conf" >"$work/log" 2>&1 & ;;
    mosquitto)
      sed "s#PORT#$port#; s#FOLDER#$PWD/$work#" benches/peers/mosquitto.conf >"$work/mosquitto.conf"
      LD_LIBRARY_PATH=$(mosquitto_libraries) "${run[@]}" -c "$work/mosquitto.conf" >"$work/log" 2>&1 & ;;
  esac
  server=$!
  case $kind in
    nats)
      target=("$base" --protocol generic --binary --publish-url "$base" --greeting-template 'CONNECT {"verbose":false}\r\n'
        --subscribe-template 'SUB {topic} {id}\r\nPING\r\n' --unsubscribe-template 'UNSUB {id}\r\n' --ready PONG
        --publish-template 'PUB {topic} {bytes}\r\n{payload}\r\n' --answer 'PING=>PONG\r\n') ;;
    centrifugo | socketio) target=("$base" --dialect "loadgen/dialects/$kind.toml") ;;
    mosquitto) target=("$base" --dialect loadgen/dialects/mqtt.toml) ;;
  esac
  case $kind in nginx | haproxy) target=("$base") ;; esac
  if [ ${#pair[@]} -gt 0 ]; then target+=(--tls-ca "$folder/ca.pem"); fi
  case $topics:$kind in
    all:mosquitto) target+=(--subscribe-as '#') ;;
    all:*) target+=(--subscribe-as '>') ;;
  esac
  for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      case $kind in stentor* | nginx | haproxy) target+=(--server-metrics "$web://127.0.0.1:$port/metrics") ;; esac
      return 0
    fi
    kill -0 "$server" 2>/dev/null || break
    sleep 0.05
  done
  why="it did not start: $(tail -n 3 "$work/log" | tr '\n' ' ')"
  stop
  return 1
}
