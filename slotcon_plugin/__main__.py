"""``python -m slotcon_plugin``: the ``slotcon`` command."""

from slotcon_plugin.cli import main

if __name__ == "__main__":
    main()
