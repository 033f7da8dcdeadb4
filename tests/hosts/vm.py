"""The disk of a host, booted as a virtual machine: a kernel of its own, cgroup v2 with every controller.

Where the machine's controllers are those of cgroup v1, its hosts (`machines`) cannot show limits; this can. Rules:
always software emulation, about ten times slower than a host; no network; one script is run in it, what it printed is
given.
"""

import subprocess
from pathlib import Path
from typing import Final

from tests.hosts.image import image
from tests.hosts.machines import Host

TIMEOUT_S: Final = 240
DISK_MB: Final = 1536
BEGIN: Final = "SCRIPT-BEGINS"
END: Final = "SCRIPT-ENDS"
UNIT: Final = f"""
[Unit]
Description=The script of a test
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo {BEGIN}; /bin/bash -e /script 2>&1; echo "{END} $?"; systemctl poweroff --no-block'
StandardOutput=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
"""


def run_as_vm(host: Host, script: str, folder: Path) -> str:
    """Boot a copy of the disk of a host that is off, run a bash script in it as root; gives what it printed."""
    own = host.root / "etc/systemd/system"
    (own / "script.service").write_text(UNIT)
    (own / "multi-user.target.wants/script.service").symlink_to("../script.service")
    (own / "serial-getty@ttyS0.service").symlink_to("/dev/null")
    (host.root / "script").write_text(script)
    disk = folder / "disk.img"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(host.root), str(disk), f"{DISK_MB}M"], check=True)
    for made in ("script", "etc/systemd/system/multi-user.target.wants/script.service",
                 "etc/systemd/system/script.service", "etc/systemd/system/serial-getty@ttyS0.service"):  # fmt: skip
        (host.root / made).unlink()
    (kernel,), (initrd,) = (list((image() / "boot").glob(name)) for name in ("vmlinuz-*", "initrd.img-*"))
    words = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024", "-nographic",
             "-no-reboot", "-monitor", "none", "-net", "none", "-kernel", str(kernel), "-initrd", str(initrd),
             "-append", "root=/dev/vda rw console=ttyS0 quiet loglevel=1 systemd.show_status=no",
             "-drive", f"file={disk},if=virtio,format=raw"]  # fmt: skip
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        raise AssertionError(f"the script did not end in {TIMEOUT_S} s:\n{(late.stdout or b'')[-6000:]!r}") from None
    finally:
        disk.unlink()
    said = done.stdout.replace("\r", "").partition(f"{BEGIN}\n")[2]
    assert f"{END} 0" in said, f"the script failed:\n{said or done.stdout[-6000:]}"
    return said.partition(END)[0]
