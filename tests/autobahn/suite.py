"""Runs cases of Autobahn|Testsuite against a server, or against the client that comes; for Python 2.7.

    suite.py client FOLDER URL [CASES]  connects to the echo at URL, case after case: all of sections 1 to 10, or CASES, such as 12.*,13.1.1
    suite.py server FOLDER [KEY CERT]   prints where it listens, and serves until it gets SIGTERM; with a key and its certificate, over TLS

A wss:// URL's certificate has to be for localhost, of somebody whom SSL_CERT_FILE names. Either way FOLDER/results has a line for each case: its number, how the other end behaved in it and how it closed.
"""
from __future__ import print_function

import json
import os
import sys

from autobahntestsuite import choosereactor  # has to come before the reactor
from twisted.internet import reactor, ssl
from autobahntestsuite.fuzzing import FuzzingClientFactory, FuzzingServerFactory

# 12 and 13 are compression, and take much longer; there is no 8 and no 11.
SECTIONS = ["%d.*" % section for section in (1, 2, 3, 4, 5, 6, 7, 9, 10)]


def run(role, folder, *arguments):
    spec = {"outdir": folder, "cases": SECTIONS, "exclude-cases": []}
    out, sys.stdout = sys.stdout, sys.stderr  # The suite tells of each case.
    if role == "client":
        if arguments[1:]:
            spec["cases"] = arguments[1].split(",")
        server = {"url": arguments[0], "agent": "stentor"}
        if server["url"].startswith("wss:"):
            server["hostname"] = u"localhost"
        spec["servers"] = [server]
        FuzzingClientFactory(spec)
    else:
        # Port 0 in the address also means that the port in the client's Host header isn't compared with it.
        scheme = "wss" if arguments else "ws"
        spec["url"] = scheme + "://127.0.0.1:0"
        factory = FuzzingServerFactory(spec)
        if arguments:
            context = ssl.DefaultOpenSSLContextFactory(*arguments)
            port = reactor.listenSSL(0, factory, context, interface="127.0.0.1")
        else:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        print("%s://127.0.0.1:%d" % (scheme, port.getHost().port), file=out)
        out.flush()
    reactor.run()


def results(folder):
    with open(os.path.join(folder, "index.json")) as index:
        agents = json.load(index).values()
    cases = [(case, result) for agent in agents for case, result in agent.items()]
    cases.sort(key=lambda case: [int(part) for part in case[0].split(".")])
    with open(os.path.join(folder, "results"), "w") as lines:
        for case, result in cases:
            print(case, result["behavior"], result["behaviorClose"], file=lines)


run(*sys.argv[1:])
results(sys.argv[2])
