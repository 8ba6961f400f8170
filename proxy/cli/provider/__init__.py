"""`keyside provider`: the back ends of this release, and the one that is configured.

command   module
list, describe   describing
check     checking (proxy.trial walks the steps)
bench     benching (proxy.pacing measures)
key       keys
log, compliance  records
"""

import click

from proxy.cli.provider.benching import bench
from proxy.cli.provider.checking import check
from proxy.cli.provider.describing import describe, list_
from proxy.cli.provider.keys import key
from proxy.cli.provider.records import compliance, log


@click.group()
def provider() -> None:
    """Look into the configured back end, and manage its keys.

    All but `list` read the configuration and speak to the back end themselves: no sidecar need run.
    """


for command in (list_, describe, check, bench, key, log, compliance):
    provider.add_command(command)
