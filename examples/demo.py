"""The demo of `make demo` and `stein demo`: see `stein.runtime.demo`."""

from stein.runtime.demo import main

if __name__ == "__main__":
    main()
