# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Commits numbered rows until it is stopped, and writes the number of each to a file when it is acknowledged.

Usage: write_rows.py CONNECTION FILE
"""

from __future__ import annotations

import sys
import time

import psycopg2

INTERVAL_S = 0.02


def main() -> None:
    dsn, path = sys.argv[1:]
    number = 0
    connection = None
    with open(path, "w", encoding="ascii") as acknowledged:
        while True:
            number += 1
            try:
                if connection is None:
                    connection = psycopg2.connect(dsn)
                    connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO written VALUES (%s)", (number,))
            except psycopg2.Error as error:
                print(f"{number}: {' '.join(str(error).split())}", flush=True)
                if connection is not None:
                    connection.close()
                    connection = None
            else:
                print(number, file=acknowledged, flush=True)
            time.sleep(INTERVAL_S)


if __name__ == "__main__":
    main()
