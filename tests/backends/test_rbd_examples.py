"""The examples of rbd pools, in a real cluster, as they are written but for the addresses of its monitor."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from poolkit import errors
from poolkit.engine import Engine
from tests.ceph import PROGRAMS, Cluster

pytestmark = pytest.mark.tools(*PROGRAMS)
EXAMPLES = Path(__file__).parents[2] / "examples" / "xml"


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("pool-rbd*.xml")))
def test_the_examples(engine: Engine, cluster: Cluster, example: str) -> None:
    text = re.sub(r"<host name='[^']*' port='\d+'/>", f"<host name='{cluster.address}' port='{cluster.port}'/>",
                  (EXAMPLES / example).read_text().replace('"', "'"))  # fmt: skip
    text = re.sub(r"<host name='[^']*'/>", f"<host name='{cluster.address}' port='{cluster.port}'/>", text)
    secret = engine.define_secret((EXAMPLES / "secret-ceph.xml").read_text())
    (place,) = re.findall(r"<source>.*?<name>(.*?)</name>", text, re.DOTALL)
    (user,) = re.findall(r"username='(.*?)'", text)
    secret.set_value(cluster.keys["admin"].encode())
    text = text.replace(f"username='{user}'", "username='admin'")
    text = re.sub(r"<secret (uuid|usage)='[^']*'/>", f"<secret uuid='{secret.uuid}'/>", text)
    cluster.make_pool(place)
    cluster.make_pool("volumes-data")
    for space in re.findall(r"<pk:namespace [^>]*name='(.*?)'", text):
        cluster.make_namespace(place, space)
    try:
        pool = engine.define(text)
        pool.start()
        other = (EXAMPLES / "volume-rbd-striped.xml").read_text().replace("volumes-data", "no-such-pool")
        with pytest.raises(errors.NotFound, match="does not have the data pool"):
            pool.create_volume(other)
        for volume in sorted(EXAMPLES.glob("volume-rbd-*.xml")):
            made = pool.create_volume(volume.read_text())
            assert pool.volume(made.name).info.capacity
            made.delete()
        pool.destroy()
    finally:
        cluster.delete_pool(place)
        cluster.delete_pool("volumes-data")
