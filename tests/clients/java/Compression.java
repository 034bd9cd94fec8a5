// Java-WebSocket, nv-websocket-client and OkHttp with permessage-deflate, which java.net.http doesn't have: all that they can offer, and one that offers nothing. They are clients of
// one topic; each publishes, and everybody gets the same. Then they are subscribers of a pattern, on which one publishes (as in ../node/stream.js).

import com.neovisionaries.ws.client.WebSocketAdapter;
import com.neovisionaries.ws.client.WebSocketException;
import com.neovisionaries.ws.client.WebSocketExtension;
import com.neovisionaries.ws.client.WebSocketFactory;
import java.net.URI;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okhttp3.WebSocketListener;
import org.java_websocket.client.WebSocketClient;
import org.java_websocket.drafts.Draft_6455;
import org.java_websocket.extensions.permessage_deflate.PerMessageDeflateExtension;
import org.java_websocket.handshake.ServerHandshake;

public class Compression {
    static final long PATIENCE = 20;
    static final int COUNT = 900;
    static final int AT_ONCE = 30;

    /** A client of one of the libraries. What goes wrong is a message. */
    abstract static class Client {
        final BlockingQueue<String> messages = new LinkedBlockingQueue<>();
        final String name;
        final boolean given;

        Client(String name, boolean given) {
            this.name = name;
            this.given = given;
        }

        /** Connects, and says on what it has agreed. */
        abstract String connect(String url) throws Exception;

        abstract void send(String text);

        abstract void close() throws Exception;

        String next() throws Exception {
            return String.valueOf(messages.poll(PATIENCE, TimeUnit.SECONDS));
        }

        String next(String type) throws Exception {
            while (true) {
                String text = next();
                check(text.startsWith("{\"type\":\"") && !text.startsWith("{\"type\":\"error\""), name + " got " + text);
                if (text.startsWith("{\"type\":\"" + type + "\"")) {
                    return text;
                }
            }
        }
    }

    static class OfJavaWebSocket extends Client {
        final PerMessageDeflateExtension extension;
        WebSocketClient socket;
        volatile String agreed = "";

        OfJavaWebSocket(String name, boolean given, PerMessageDeflateExtension extension) {
            super("Java-WebSocket, " + name, given);
            this.extension = extension;
        }

        /**
         * It offers that nobody keeps context, in any case. Told that the server may keep its own, it keeps its own itself, which it has agreed not to: so of
         * the server's that stays as it is. What comes it inflates with context or without.
         */
        static PerMessageDeflateExtension extension(boolean clientAlone) {
            PerMessageDeflateExtension extension = new PerMessageDeflateExtension();
            extension.setClientNoContextTakeover(clientAlone);
            extension.setThreshold(0);
            return extension;
        }

        @Override
        String connect(String url) throws Exception {
            socket = new WebSocketClient(URI.create(url), extension == null ? new Draft_6455() : new Draft_6455(extension)) {
                @Override
                public void onOpen(ServerHandshake answer) {
                    agreed = answer.getFieldValue("Sec-WebSocket-Extensions");
                }

                @Override
                public void onMessage(String message) {
                    messages.add(message);
                }

                @Override
                public void onClose(int code, String reason, boolean remote) {
                    messages.add("closed with " + code + " " + reason);
                }

                @Override
                public void onError(Exception error) {
                    messages.add(error.toString());
                }
            };
            socket.setConnectionLostTimeout(0);
            check(socket.connectBlocking(PATIENCE, TimeUnit.SECONDS), name + " can't connect: " + messages);
            return agreed;
        }

        @Override
        void send(String text) {
            socket.send(text);
        }

        @Override
        void close() throws Exception {
            socket.closeBlocking();
        }
    }

    static class OfNv extends Client {
        final String offer;
        com.neovisionaries.ws.client.WebSocket socket;

        OfNv(String offer, boolean given) {
            super("nv-websocket-client, " + offer, given);
            this.offer = offer;
        }

        @Override
        String connect(String url) throws Exception {
            socket = new WebSocketFactory().createSocket(url, (int) PATIENCE * 1000);
            socket.addExtension(WebSocketExtension.parse(offer));
            socket.addListener(new WebSocketAdapter() {
                @Override
                public void onTextMessage(com.neovisionaries.ws.client.WebSocket from, String text) {
                    messages.add(text);
                }

                @Override
                public void onError(com.neovisionaries.ws.client.WebSocket from, WebSocketException cause) {
                    messages.add(cause.toString());
                }
            });
            socket.connect();
            List<WebSocketExtension> agreed = socket.getAgreedExtensions();
            return agreed == null ? "" : agreed.get(0).toString();
        }

        @Override
        void send(String text) {
            socket.sendText(text);
        }

        @Override
        void close() {
            socket.disconnect();
        }
    }

    static class OfOkHttp extends Client {
        static final OkHttpClient LIBRARY = new OkHttpClient.Builder().minWebSocketMessageToCompress(0).build();
        final BlockingQueue<String> agreed = new LinkedBlockingQueue<>();
        okhttp3.WebSocket socket;

        OfOkHttp(String name) {
            super("OkHttp, " + name, true);
        }

        @Override
        String connect(String url) throws Exception {
            socket = LIBRARY.newWebSocket(new Request.Builder().url(url).build(), new WebSocketListener() {
                @Override
                public void onOpen(okhttp3.WebSocket from, Response answer) {
                    agreed.add(String.valueOf(answer.header("Sec-WebSocket-Extensions")));
                }

                @Override
                public void onMessage(okhttp3.WebSocket from, String text) {
                    messages.add(text);
                }

                @Override
                public void onFailure(okhttp3.WebSocket from, Throwable error, Response answer) {
                    messages.add(error.toString());
                }
            });
            return String.valueOf(agreed.poll(PATIENCE, TimeUnit.SECONDS));
        }

        @Override
        void send(String text) {
            socket.send(text);
        }

        @Override
        void close() {
            socket.close(1000, null);
        }
    }

    static List<Client> clients(String url) throws Exception {
        List<Client> clients = new ArrayList<>();
        clients.add(new OfJavaWebSocket("clear", false, null));
        clients.add(new OfJavaWebSocket("as it comes", true, OfJavaWebSocket.extension(false)));
        clients.add(new OfJavaWebSocket("nobody keeps anything", true, OfJavaWebSocket.extension(true)));
        clients.add(new OfNv("permessage-deflate", true));
        for (int bits = 8; bits <= 15; bits++) {
            clients.add(new OfNv("permessage-deflate; server_max_window_bits=" + bits, bits > 8));
            if (bits > 8) {
                clients.add(new OfNv("permessage-deflate; client_max_window_bits=" + bits, true));
            }
        }
        clients.add(new OfNv("permessage-deflate; server_no_context_takeover; client_no_context_takeover", true));
        for (int n = 0; n < 3; n++) {
            clients.add(new OfOkHttp("client " + n));
        }
        for (Client client : clients) {
            String agreed = client.connect(url);
            check(agreed.startsWith("permessage-deflate") == client.given, client.name + " agreed on " + agreed + " " + client.messages);
        }
        return clients;
    }

    static List<String> texts(String name) {
        StringBuilder noise = new StringBuilder();
        for (long n = 0; n < 3000; n++) {
            noise.append((char) (33 + (7919 * n * n + name.length()) % 90));
        }
        String quotes = String.join("", Collections.nCopies(20, name + ": {\"bid\":189.21,\"ask\":189.23} gr\u00fc\u00dfe "));
        return List.of(name + ", short", quotes, noise.toString());
    }

    /** JSON as it is written, not as somebody would write it again. */
    static String quote(long n) {
        if (n % 10 == 9) {
            return "{\"n\": " + n + "}";
        }
        StringBuilder text = new StringBuilder("{\"n\":" + n);
        if (n % 50 == 48) {
            text.append(",\"noise\":\"");
            for (long at = 0; at < 7000; at++) {
                text.append((char) (48 + (7919 * at * at + 31 * n * at) % 43));
            }
            return text + "\"}";
        }
        text.append(",\"venue\":\"XNAS\",\"text\":\"gr\u00fc\u00dfe\",\"bids\":[0");
        for (long at = 0; at < 6; at++) {
            text.append(",[" + (100 + n % 7) + "." + ((7919 * n * n + at) % 90 + 10) + "," + ((n * 37 + at) % 500 + 1) + "00]");
        }
        return text + "], \"last\":1.50}";
    }

    static void stream(List<Client> subscribers, Client publisher, String topic) throws Exception {
        for (Client client : subscribers) {
            client.send("{\"op\":\"sub\",\"id\":1,\"topics\":[\"" + topic + ".*\"]}");
        }
        for (Client client : subscribers) {
            client.next("ack");
        }
        for (long first = 0; first < COUNT; first += AT_ONCE) {
            for (long n = first; n < first + AT_ONCE; n++) {
                publisher.send("{\"op\":\"pub\",\"topic\":\"" + topic + "." + n % 5 + "\",\"data\":" + quote(n) + "}");
            }
            for (Client client : subscribers) {
                for (long n = first; n < first + AT_ONCE; n++) {
                    String got = client.next("update");
                    boolean isIt = got.startsWith("{\"type\":\"update\",\"topic\":\"" + topic + "." + n % 5 + "\",") && got.endsWith(",\"data\":" + quote(n) + "}");
                    check(isIt, client.name + " got " + got + " for " + quote(n));
                }
            }
        }
    }

    static void check(boolean good, String otherwise) {
        if (!good) {
            System.err.println(otherwise.substring(0, Math.min(otherwise.length(), 500)).replace('\n', ' '));
            System.exit(1);
        }
    }

    public static void main(String[] arguments) {
        System.out.println(System.getenv("JAVA_COMPRESSION") + ", compression (Java " + System.getProperty("java.version") + ")");
        try {
            run(arguments[0]);
        } catch (Throwable error) {
            check(false, error.toString());
        }
        System.exit(0);
    }

    static void run(String base) throws Exception {
        String topic = "clients.compression.java." + base.substring(0, 3);
        List<Client> clients = clients(base + "/raw/" + topic);
        for (Client publisher : clients) {
            for (String text : texts(publisher.name)) {
                publisher.send(text);
                for (Client client : clients) {
                    String got = client.next();
                    check(text.equals(got), client.name + " got " + got + " of " + publisher.name);
                }
            }
        }
        List<Client> subscribers = clients(base + "/ws");
        Client publisher = new OfJavaWebSocket("publisher", false, null);
        publisher.connect(base + "/ws");
        stream(subscribers, publisher, topic);
        subscribers.addAll(clients);
        for (Client client : subscribers) {
            client.close();
        }
    }
}
