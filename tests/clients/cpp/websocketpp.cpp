// The conversation of ../README.md with WebSocket++, whose loop has a thread of its own. With TLS it is another type of client, so another program:
// compiled with -DWITH_TLS.

#define ASIO_STANDALONE
#include <websocketpp/client.hpp>
#ifdef WITH_TLS
#include <websocketpp/config/asio_client.hpp>
#else
#include <websocketpp/config/asio_no_tls_client.hpp>
#endif
#include <websocketpp/version.hpp>

#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <functional>
#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#ifdef WITH_TLS
using Client = websocketpp::client<websocketpp::config::asio_tls_client>;
#else
using Client = websocketpp::client<websocketpp::config::asio_client>;
#endif
using websocketpp::connection_hdl;
namespace opcode = websocketpp::frame::opcode;

constexpr auto patience = std::chrono::seconds(20);

[[noreturn]] void fail(const std::string &expected, const std::string &found) {
    std::cerr << "expected " << expected << ", found " << found << std::endl;
    std::_Exit(1);
}

void check(bool good, const std::string &expected, const std::string &found) {
    if (!good) fail(expected, found);
}

/// What comes in the loop's thread is put here and waited for in the main one.
template <typename T> class Queue {
  public:
    void put(T item) {
        std::lock_guard<std::mutex> lock(mutex);
        items.push_back(std::move(item));
        ready.notify_one();
    }

    T take(const std::string &what) {
        std::unique_lock<std::mutex> lock(mutex);
        check(ready.wait_for(lock, patience, [this] { return !items.empty(); }), what, "nothing");
        T item = std::move(items.front());
        items.pop_front();
        return item;
    }

  private:
    std::mutex mutex;
    std::condition_variable ready;
    std::deque<T> items;
};

class Socket {
  public:
    struct Message {
        opcode::value kind;
        std::string data;
    };
    Queue<Message> messages;
    Queue<std::string> pongs;
    Queue<int> codes;

    Socket(Client &client, const std::string &url, const std::string &protocol) : client(client) {
        websocketpp::lib::error_code error;
        Client::connection_ptr connection = client.get_connection(url, error);
        check(!error, url, error.message());
        if (!protocol.empty()) connection->add_subprotocol(protocol);
        connection->set_open_handler([this](connection_hdl) { opened.put(""); });
        connection->set_fail_handler([this](connection_hdl handle) {
            opened.put(this->client.get_con_from_hdl(handle)->get_ec().message());
        });
        connection->set_message_handler([this](connection_hdl, Client::message_ptr message) {
            messages.put({message->get_opcode(), message->get_payload()});
        });
        connection->set_pong_handler([this](connection_hdl, std::string payload) { pongs.put(payload); });
        connection->set_close_handler([this](connection_hdl handle) {
            codes.put(this->client.get_con_from_hdl(handle)->get_remote_close_code());
        });
        handle = connection->get_handle();
        client.connect(connection);
        std::string failure = opened.take(url);
        check(failure.empty(), url, failure);
    }

    void send(const std::string &data, opcode::value kind = opcode::text) { client.send(handle, data, kind); }
    void ping() { client.ping(handle, "?"); }
    void close(int code) { client.close(handle, code, ""); }

    /// The next message of this type; it has to hold this.
    void until(const std::string &type, const std::string &holding) {
        for (;;) {
            std::string text = messages.take(type).data;
            check(text.find("\"type\":\"error\"") == std::string::npos, type, text);
            if (text.find("\"type\":\"" + type + "\"") == std::string::npos) continue;
            return check(text.find(holding) != std::string::npos, holding, text);
        }
    }

    void returns(const std::string &data, opcode::value kind) {
        send(data, kind);
        Message message = messages.take("what was sent");
        check(message.kind == kind && message.data == data, data, message.data);
    }

    void closed_with(int code) {
        int found = codes.take("an end");
        check(found == code, std::to_string(code), std::to_string(found));
    }

  private:
    Client &client;
    connection_hdl handle;
    Queue<std::string> opened;
};

int main(int count, char **arguments) {
    check(count == 2, "ws://HOST:PORT or wss://HOST:PORT", "no address");
    std::string base = arguments[1], topic = "clients.cpp";
    std::cout << "WebSocket++ " << websocketpp::major_version << '.' << websocketpp::minor_version << '.'
              << websocketpp::patch_version << " (C++)" << std::endl;
    Client client;
    client.clear_access_channels(websocketpp::log::alevel::all);
    client.clear_error_channels(websocketpp::log::elevel::all);
    client.init_asio();
#ifdef WITH_TLS
    client.set_tls_init_handler([](connection_hdl) {
        using namespace websocketpp::lib::asio;
        auto context = websocketpp::lib::make_shared<ssl::context>(ssl::context::tls_client);
        context->set_default_verify_paths();
        context->set_verify_mode(ssl::verify_peer);
        context->set_verify_callback(ssl::rfc2818_verification("127.0.0.1"));
        return context;
    });
#endif
    client.start_perpetual();
    std::thread loop([&client] { client.run(); });

    Socket ws(client, base + "/ws", "stentor.v1.json");
    ws.until("hello", "\"version\":1");
    ws.send(R"({"op":"sub","id":1,"topics":[")" + topic + R"("]})");
    ws.until("ack", "\"id\":1");
    ws.send(R"({"op":"pub","topic":")" + topic + R"(","data":{"bid":1.5}})");
    ws.until("update", R"("data":{"bid":1.5})");

    Socket raw(client, base + "/raw/" + topic, "");
    raw.returns("gr\u00fc\u00dfe", opcode::text);
    ws.until("update", "\"data\":\"gr\u00fc\u00dfe\"");
    const std::string bytes("\x00\xff\x01\x02", 4);
    raw.returns(bytes, opcode::binary);
    ws.until("update", R"("base64":"AP8BAg==")");

    ws.ping();
    check(ws.pongs.take("a pong") == "?", "?", "another payload");
    ws.send(R"({"op":"ping","id":"p"})");
    ws.until("pong", R"("id":"p")");
    for (int beats = 0; beats < 3; beats++) ws.until("heartbeat", "");

    raw.close(1000);
    raw.closed_with(1000);
    ws.send(bytes, opcode::binary);
    ws.closed_with(1003);
    client.stop_perpetual();
    client.stop();
    loop.join();
}
