# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""A small policy server: configurations in PostgreSQL, written over HTTP, replicated as a tree of files."""
