#!/usr/bin/env bash
# A real Apache Kafka on this machine, from its published jars: one node, KRaft, loopback only.
#
#   scripts/kafka.sh start DIR PORT        start a broker on 127.0.0.1:PORT with its data, log and pid in DIR
#   scripts/kafka.sh topic PORT NAME N     make a topic of N partitions
#   scripts/kafka.sh stop DIR              stop the broker of DIR and wait until it is gone
#
# Needs java 17 or newer, and mvn for the first run: the jars go to a cache outside the repository
# (LAPWING_CACHE, else ~/.cache/lapwing). PORT + 1 is the controller's.
set -euo pipefail

version=4.1.0
cache=${LAPWING_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lapwing}/kafka-$version

die() {
    echo "kafka.sh: $*" >&2
    exit 1
}

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

# The jars and all they need; a folder that is half filled is never taken for a full one.
jars() {
    [ -e "$cache/complete" ] && return
    command -v mvn >/dev/null || die "mvn is missing; install maven, or fill $cache on another machine"
    mkdir -p "$cache"
    cat >"$cache/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>$version</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>$version</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.24.3</version>
      <scope>runtime</scope>
    </dependency>
  </dependencies>
</project>
POM
    mvn -q -B -f "$cache/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$cache/jars" ||
        die "maven could not fetch Kafka $version; check the network and its settings"
    touch "$cache/complete"
}

java_run() {
    java -Xmx512m -cp "$cache/jars/*" "$@"
}

topics() {
    java_run org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:$1" "${@:2}"
}

start() {
    local port=$1 dir=$2
    command -v java >/dev/null || die "java is missing; install a JRE of 17 or newer"
    [ ! -e "$dir/pid" ] || ! kill -0 "$(cat "$dir/pid")" 2>/dev/null || die "a broker of $dir runs already"
    jars
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$dir/data
num.partitions=1
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
PROPERTIES
    if [ ! -e "$dir/data/meta.properties" ]; then
        local id
        id=$(java_run kafka.tools.StorageTool random-uuid 2>/dev/null | tail -1)
        java_run kafka.tools.StorageTool format -t "$id" -c "$dir/server.properties" >"$dir/format.log" 2>&1 ||
            die "the data folder cannot be formatted; see $dir/format.log"
    fi
    nohup java -Xmx512m -cp "$cache/jars/*" kafka.Kafka "$dir/server.properties" >"$dir/broker.log" 2>&1 </dev/null &
    echo $! >"$dir/pid"
    for _ in $(seq 60); do
        kill -0 "$(cat "$dir/pid")" 2>/dev/null || die "the broker ended; see $dir/broker.log"
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && topics "$port" --list >/dev/null 2>&1; then
            echo "kafka $version answers on 127.0.0.1:$port"
            return
        fi
        sleep 0.5
    done
    stop "$dir"
    die "the broker did not answer within the time; see $dir/broker.log"
}

stop() {
    local dir=$1 pid
    [ -e "$dir/pid" ] || die "no broker was started in $dir"
    pid=$(cat "$dir/pid")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 40); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.25
    done
    kill -9 "$pid" 2>/dev/null || true
    rm -f "$dir/pid"
}

case "${1:-} $#" in
"start 3") start "$3" "$2" ;;
"topic 4")
    jars
    topics "$2" --create --topic "$3" --partitions "$4"
    ;;
"stop 2") stop "$2" ;;
*) usage ;;
esac
