"""`python -m stein` and the command `stein`: hands over to `stein.runtime.cli`, which is imported on use."""


def main() -> None:
    """Run the command line; leaves the process with its exit code."""
    from stein.runtime.cli import main as run

    run()


if __name__ == "__main__":
    main()
