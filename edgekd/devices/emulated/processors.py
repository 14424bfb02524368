"""Which processors can be emulated, and what runtimes read about them."""

from edgekd.errors import InputError
from edgekd.values.target import Hardware, load_target

# cpu of a target -> QEMU 7.2's model for it, Arm's part number, /proc/cpuinfo's features.
# A wrong cpuinfo crashes ONNX Runtime, and a processor with SVE makes LiteRT 2.3 compute wrongly.
_V8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V82 = _V8 + " atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
PROCESSORS = {
    "cortex-a53": ("cortex-a53", "0xd03", _V8),
    "cortex-a57": ("cortex-a57", "0xd07", _V8),
    "cortex-a72": ("cortex-a72", "0xd08", _V8),
    "cortex-a76": ("cortex-a76", "0xd0b", _V82),
    "cortex-a78ae": ("cortex-a76", "0xd0b", _V82),  # QEMU's closest model: also Armv8.2-A
}


def hardware_of(name: str) -> Hardware:
    """The hardware of the target of that name. Raises `InputError` if it can't be emulated."""
    if not name or "/" in name or name.startswith("."):
        raise InputError(
            f"there is no board named '{name}'", where="--device", allowed="emulated://TARGET"
        )
    hardware = load_target(name).hardware
    if hardware.architecture != "aarch64" or hardware.cpu not in PROCESSORS:
        raise InputError(
            f"its {hardware.cpu} ({hardware.architecture}) can't be emulated",
            where=f"target {name}",
            allowed=", ".join(PROCESSORS),
        )
    return hardware


def system_files(hardware: Hardware) -> dict[str, str]:
    """The files about the processor that runtimes read under user-mode emulation, by path; the
    host's own files would mislead them."""
    _, part, features = PROCESSORS[hardware.cpu]
    core = (
        "processor\t: {0}\nBogoMIPS\t: 108.00\nFeatures\t: {1}\nCPU implementer\t: 0x41\n"
        "CPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: {2}\nCPU revision\t: 1\n\n"
    )
    cores = "".join(core.format(number, features, part) for number in range(hardware.cores))
    numbers = f"0-{hardware.cores - 1}\n"
    cpus = {f"sys/devices/system/cpu/{key}": numbers for key in ("possible", "present", "online")}
    return {"proc/cpuinfo": cores, **cpus}
