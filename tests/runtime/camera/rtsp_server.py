"""A real RTSP server, GStreamer's: `/usr/bin/python3 rtsp_server.py '{"launch": …}'`. Needs Debian's python3-gi.

Prints its port. Lines on standard input are commands: `drop` closes every connection, `size WxH` changes
the picture's size within the stream.
"""

import json
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402


def main() -> None:
    settings = json.loads(sys.argv[1])
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(settings.get("port", 0)))
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_shared(True)
    factory.set_launch(settings["launch"])
    pipelines = []

    def configure(factory, media):
        pipelines.append(media.get_element())
        payloader = pipelines[-1].get_by_name("pay0")
        payloader.get_static_pad("sink").add_probe(Gst.PadProbeType.QUERY_UPSTREAM, live)

    factory.connect("media-configure", configure)
    server.get_mount_points().add_factory("/stream", factory)
    login(server, factory, settings)
    if server.attach(None) == 0:
        sys.exit("The port is taken.")

    def command(channel, condition):
        words = (channel.readline() or "").split()
        if not words:
            sys.exit(0)
        if words[0] == "drop":
            server.client_filter(lambda server, client: GstRtspServer.RTSPFilterResult.REMOVE)
        elif words[0] == "size":
            width, height = words[1].split("x")
            caps = Gst.Caps.from_string(f"video/x-raw,width={width},height={height}")
            pipelines[-1].get_by_name("size").set_property("caps", caps)
        print("done", flush=True)
        return True

    GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IO_IN | GLib.IO_HUP, command)
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


def live(pad, info):
    """Live video cannot be sought; else GStreamer begins the shared stream anew for whoever joins."""
    asks = info.get_query().type == Gst.QueryType.SEEKING
    return Gst.PadProbeReturn.HANDLED if asks else Gst.PadProbeReturn.OK


def login(server, factory, settings) -> None:
    """Who may see the stream: everyone, or one user; with TLS or without."""
    if "user" not in settings and "certificate" not in settings:
        return
    auth = GstRtspServer.RTSPAuth()
    viewer = GstRtspServer.RTSPToken()
    viewer.set_string("media.factory.role", "viewer")
    if "certificate" in settings:
        auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(settings["certificate"]))
    if "user" not in settings:
        auth.set_default_token(viewer)
    elif settings["scheme"] == "digest":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(settings["user"], settings["password"], viewer)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(settings["user"], settings["password"]), viewer)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)
    server.set_auth(auth)


main()
