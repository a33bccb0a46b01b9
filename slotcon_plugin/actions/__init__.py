"""What people do with this package, a function each: pretrain, export, evaluate, embed, look.

``slotcon_plugin`` hands the functions on by their names; the ``slotcon`` command is their face on the command line.
"""
