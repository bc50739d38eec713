"""The command line: one module for each group of commands.

Options and words alone: what a command does lies in another folder.
"""
