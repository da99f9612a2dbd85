import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.*;
import java.math.BigDecimal;
import java.net.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.serialization.StringSerializer;

/** Sends one video to Unmask through Kafka and polls Redis for its record, as docs/contracts.md describes. */
public final class UnmaskClient {
    private static final String USAGE = "UnmaskClient --kafka HOST:PORT"
            + " --redis redis://[[USER]:PASSWORD@]HOST:PORT[/DB] [--timeout-s 60] [--class upload|archive] URI_OR_PATH";
    private static final Map<String, String> TOPICS = Map.of("upload", "unmask.videos", "archive", "unmask.archive");
    private static final int SCHEMA = 1;
    private static final int SCORED = 0, ERROR = 2, NOT_SCORED = 3, TIMEOUT = 4;

    // Judging takes seconds: five polls a second are enough and cost Redis nothing.
    private static final long POLL_MS = 200;
    // Redis answers within milliseconds; a connection that is silent for this long is considered dead.
    private static final int SILENT_MS = 5_000;

    private record Options(String kafka, URI redis, long timeoutMs, String sourceClass, String uri) {}

    /** Ends the program; its message is for the user. */
    private static final class Failure extends Exception {
        Failure(String message) {
            super(message);
        }

        Failure(String what, Throwable cause) {
            this(what + ": " + cause);
        }
    }

    public static void main(String[] arguments) throws InterruptedException {
        // Otherwise Kafka's client logs its whole configuration. Only slf4j-simple reads this.
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "error");
        int code = ERROR;
        try {
            code = run(parse(arguments));
        } catch (Failure failure) {
            System.err.println("error: " + failure.getMessage());
        }
        System.exit(code);
    }

    private static int run(Options options) throws Failure, InterruptedException {
        // A new id each time: the first verdict of an id is final, so a used one returns the old verdict.
        String id = "java-" + UUID.randomUUID(), key = "unmask:clip:" + id, state = "none";
        try (Redis redis = new Redis(options.redis())) {
            redis.ask("HMGET", key, "state", "verdict"); // before the video is sent: can Redis be reached and read?
            send(options, id);
            long sentNs = System.nanoTime();
            do {
                List<String> found = redis.ask("HMGET", key, "state", "verdict");
                if (found.get(1) != null) {
                    return show(found.get(1));
                }
                if (found.get(0) != null && !found.get(0).equals(state)) {
                    state = found.get(0);
                    System.err.println(state);
                }
                Thread.sleep(POLL_MS);
            } while ((System.nanoTime() - sentNs) / 1_000_000 < options.timeoutMs());
        } catch (IOException error) {
            throw new Failure("Redis at " + options.redis().getHost() + ":" + options.redis().getPort(), error);
        }
        System.err.println("timeout: no verdict of " + id + "; last state: " + state);
        return TIMEOUT;
    }

    /** Returns once all replicas have the task. */
    private static void send(Options options, String id) throws Failure, InterruptedException {
        Map<String, Object> settings = Map.of(
                ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, options.kafka(), ProducerConfig.ACKS_CONFIG, "all");
        String topic = TOPICS.get(options.sourceClass());
        String task = new ObjectMapper().createObjectNode()
                .put("schema", SCHEMA)
                .put("video_id", id)
                .put("uri", options.uri())
                .put("source_class", options.sourceClass())
                .put("submitted_at", BigDecimal.valueOf(System.currentTimeMillis(), 3)) // ms as seconds
                .toString();
        KafkaProducer<String, String> producer = null;
        try {
            producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
            producer.send(new ProducerRecord<>(topic, id, task)).get();
        } catch (KafkaException | ExecutionException error) {
            Throwable cause = error.getCause() == null ? error : error.getCause();
            // Its client has one message for a broker that is away and for a topic that does not exist.
            throw new Failure("Kafka at " + options.kafka() + " (running? with a topic " + topic + "?)", cause);
        } finally {
            if (producer != null) {
                producer.close(Duration.ZERO); // acknowledged or given up
            }
        }
        System.err.println("sent " + id + " to " + topic);
    }

    private static int show(String text) throws Failure, IOException {
        JsonNode record = new ObjectMapper().readTree(text);
        if (record.path("schema").asInt() != SCHEMA) {
            throw new Failure("the record has schema " + record.path("schema") + ", this program knows " + SCHEMA);
        }
        // UTF-8 in any locale: the record as it is stored.
        new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8).println(text);
        return record.path("outcome").asText().equals("scored") ? SCORED : NOT_SCORED;
    }

    private static Options parse(String[] arguments) throws Failure {
        Map<String, String> given = new HashMap<>(
                Map.of("--kafka", "", "--redis", "", "--timeout-s", "60", "--class", "upload", "URI_OR_PATH", ""));
        for (int i = 0; i < arguments.length; i++) {
            boolean option = arguments[i].startsWith("--");
            String name = option ? arguments[i++] : "URI_OR_PATH";
            check(given.containsKey(name), name + ": no such option");
            check(i < arguments.length, name + " needs a value");
            check(option || given.get(name).isEmpty(), "give one video at a time");
            given.put(name, arguments[i]);
        }
        for (String name : given.keySet()) {
            check(!given.get(name).isEmpty(), name + " is missing or empty");
        }
        check(TOPICS.containsKey(given.get("--class")), "--class: upload or archive");
        check(given.get("--timeout-s").matches("[1-9][0-9]{0,6}"), "--timeout-s: whole seconds, 1 to 9999999");
        long timeoutMs = Long.parseLong(given.get("--timeout-s")) * 1000;
        URI redis = redis(given.get("--redis"));
        return new Options(given.get("--kafka"), redis, timeoutMs, given.get("--class"), uri(given.get("URI_OR_PATH")));
    }

    private static URI redis(String text) throws Failure {
        try {
            URI url = new URI(text);
            boolean whole = "redis".equals(url.getScheme()) && url.getHost() != null && url.getPort() >= 0;
            boolean named = url.getUserInfo() == null || url.getUserInfo().contains(":");
            check(whole && named && url.getPort() < 65_536, "--redis: expected redis://HOST:PORT[/DB]");
            return url;
        } catch (URISyntaxException error) {
            throw new Failure("--redis: " + error.getReason()); // without the URL, which may hold a password
        }
    }

    private static void check(boolean good, String otherwise) throws Failure {
        if (!good) {
            throw new Failure(otherwise + "\nusage: " + USAGE);
        }
    }

    private static String uri(String source) throws Failure {
        check(source.indexOf('\uFFFD') < 0, "URI_OR_PATH is not in the locale's encoding; try LC_ALL=C.UTF-8");
        // Not Path.toUri(), which gives file:///a%20b for "/a b": the worker does not decode it.
        boolean uri = source.matches("(?s)[A-Za-z][A-Za-z0-9+.-]*://.*");
        return uri ? source : Path.of(source).toAbsolutePath().toString();
    }

    /** The part of Redis' protocol (RESP2) needed to read a hash. */
    private static final class Redis implements Closeable {
        private final Socket socket = new Socket();
        private final DataInputStream in;

        Redis(URI address) throws IOException {
            socket.connect(new InetSocketAddress(address.getHost(), address.getPort()), SILENT_MS);
            socket.setSoTimeout(SILENT_MS);
            in = new DataInputStream(new BufferedInputStream(socket.getInputStream()));
            if (address.getUserInfo() != null) {
                String[] parts = address.getUserInfo().split(":", 2);
                ask("AUTH", parts[0].isEmpty() ? "default" : parts[0], parts[1]);
            }
            if (address.getPath().length() > 1) {
                ask("SELECT", address.getPath().substring(1));
            }
        }

        /** Values of a list, or one value; null is null. */
        List<String> ask(String... words) throws IOException {
            StringBuilder request = new StringBuilder("*" + words.length + "\r\n");
            for (String word : words) {
                int bytes = word.getBytes(StandardCharsets.UTF_8).length;
                request.append("$" + bytes + "\r\n" + word + "\r\n");
            }
            socket.getOutputStream().write(request.toString().getBytes(StandardCharsets.UTF_8));
            return answer();
        }

        private List<String> answer() throws IOException {
            String line = line();
            List<String> values = new ArrayList<>();
            if (line.startsWith("+")) {
                values.add(line.substring(1));
            } else if (line.startsWith("*")) {
                for (int left = Integer.parseInt(line.substring(1)); left > 0; left--) {
                    values.addAll(answer());
                }
            } else if (line.equals("$-1")) {
                values.add(null);
            } else if (line.startsWith("$")) {
                byte[] value = new byte[Integer.parseInt(line.substring(1))];
                in.readFully(value);
                line(); // an empty line follows each value
                values.add(new String(value, StandardCharsets.UTF_8));
            } else {
                throw new IOException("answers " + line); // an error, "-...", or no Redis at all
            }
            return values;
        }

        private String line() throws IOException {
            StringBuilder line = new StringBuilder();
            for (char next = (char) in.readByte(); next != '\n'; next = (char) in.readByte()) {
                line.append(next);
            }
            return line.toString().stripTrailing();
        }

        @Override
        public void close() throws IOException {
            socket.close();
        }
    }
}
