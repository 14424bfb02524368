"""The command line of `edgekd doctor`."""

from edgekd.cli.options import AsJson, Device
from edgekd.cli.output import print_json, print_rows


def doctor(device: Device = None, as_json: AsJson = False) -> None:
    """Show which runtimes, compilers and sensors are installed, and how to get the rest."""
    from dataclasses import asdict

    from edgekd.devices.doctor import examine, examine_device

    findings = examine_device(device) if device else examine()
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    rows = [(each.name, each.purpose, each.found or f"missing: {each.hint}") for each in findings]
    print_rows([("component", "purpose", "found"), *rows])
