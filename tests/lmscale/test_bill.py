"""What a run costs: the table of accelerators, a user's file, the share of peak measured, and the arithmetic."""

import pandas as pd
import pytest

from analysis.errors import InputError
from analysis.table import from_frame
from lmscale.planning.accelerators import ACCELERATORS
from lmscale.planning.bill import bill, bill_cells, share_of
from lmscale.planning.prices import price_of, priced, read_prices

H100 = "NVIDIA H100 80GB HBM3"


def test_every_accelerator_is_in_the_table_with_a_source_for_every_number():
    table = priced()
    assert set(table) == {kind for accelerator in ACCELERATORS for kind in accelerator.kinds}
    for device in table.values():
        assert (device.dollars_per_hour is None) == (device.price_source == "")
        assert (device.watts is None) == (device.watts_source == "")


def test_a_bill_by_hand():
    """989.5 TFLOP/s at 40 % for an hour are 1.42488e18 FLOPs; at 700 W that is 0.7 kWh."""
    device = price_of(H100)
    found = bill(1.42488e18, device, share_of(from_frame(runs()), device, 0.4))
    assert found.device_hours == pytest.approx(1.0)
    assert found.dollars == pytest.approx(device.dollars_per_hour)
    assert found.kwh == pytest.approx(0.7)
    assert bill_cells(found)["energy"] == "0.7 kWh"


def test_what_is_not_known_is_no_number():
    found = bill(1e20, price_of("v5e"), share_of(from_frame(runs()), price_of("v5e"), 0.4))
    assert found.kwh is None
    assert bill_cells(found)["energy"] == "power unknown"
    assert bill_cells(bill(1e20, price_of("H200"), share_of(from_frame(runs()), price_of("H200"), 0.4)))["cost"] == (
        "price unknown"
    )


def runs(**columns):
    return pd.DataFrame(
        {"params": [1e6, 1e7], "tokens": [1e7, 1e7], "flops": [7e13, 7e14], "loss": [3.0, 2.0], **columns}
    )


def test_the_share_is_measured_on_the_largest_run_of_that_device():
    """7e14 FLOPs over 1e7 tokens, batches of 1e5 tokens, 0.05 s a step on 2 devices: 7e12 / 0.05 / 2 / 989.5e12."""
    table = from_frame(runs(device=f"gpu:{H100}", step_seconds=[0.02, 0.05], batch_tokens=1e5, mesh="2,1,1"))
    share = share_of(table, price_of(H100), None)
    assert share.value == pytest.approx(7e12 / 0.05 / 2 / 989.5e12)
    assert "measured" in share.source
    other = share_of(table, price_of("H200"), None)
    assert other.value == 0.4
    assert "Chowdhery" in other.source


def test_a_file_extends_the_table_and_changes_its_prices(tmp_path):
    file = tmp_path / "ours.toml"
    file.write_text(
        f'["{H100}"]\ndollars_per_hour = 1.5\nsource = "our contract"\n\n[farm]\nbfloat16_tflops = 100\nwatts = 250\n'
    )
    ours = price_of(H100, file)
    assert (ours.dollars_per_hour, ours.price_source, ours.watts) == (1.5, "our contract", 700.0)
    farm = price_of("FARM", file)
    assert (farm.bfloat16_flops, farm.watts, farm.dollars_per_hour) == (1e14, 250.0, None)
    assert price_of("H200", file) == price_of("H200")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[farm]\nwatts = 250\n", "'farm' is not in the table; give its bfloat16_tflops"),
        ("[farm]\nbfloat16_tflops = -1\n", "bfloat16_tflops = -1 is not a positive number"),
        ("[farm]\nbfloat16_tflops = true\n", "is not a positive number"),
        ("[farm]\nbfloat16_tflops = nan\n", "is not a positive number"),
        ("[farm]\ncolour = 1\n", "'colour' is unknown"),
        ("farm = 1\n", "'farm' is no table"),
        ("[farm", "cannot be read"),
    ],
)
def test_bad_files_are_named(tmp_path, text, cause):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(InputError, match=r"^accelerators: ") as caught:
        read_prices(tmp_path / "bad.toml")
    assert cause in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_device_that_is_none_or_several_is_named(tmp_path):
    with pytest.raises(InputError, match=r"^device: 'MI300' is no accelerator known.*--accelerators FILE"):
        price_of("MI300")
    with pytest.raises(InputError, match=r"^device: 'H100' may be several"):
        price_of("H100")
    with pytest.raises(InputError, match=r"^accelerators: .*cannot be read"):
        price_of("H200", tmp_path / "missing.toml")
