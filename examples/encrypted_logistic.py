"""Encrypted logistic regression: a server scores tumours that it never sees (breast-cancer data, 30 features).

The model is trained in clear. Its features arrive encrypted; weights and bias stay with the server; the sigmoid is the
polynomial that `approx` fits on a range, with the largest distance from the sigmoid known. The encrypted decisions must
be those of the clear model.
"""

import numpy as np

import stein

PROGRAM = """
    h[p] = approx(sigmoid, degree=7, range=-16..16)(sum[f] X[p,f] * w[f] + b)
"""


def trained(X: np.ndarray, labels: np.ndarray, steps: int = 400) -> tuple[np.ndarray, float]:
    """Weights and bias by gradient descent with some decay, which keeps the scores within the polynomial's range."""
    w, b = np.zeros(X.shape[1]), 0.0
    for _ in range(steps):
        slope = 1 / (1 + np.exp(-(X @ w + b))) - labels
        w -= 0.5 * (X.T @ slope / len(X) + 0.005 * w)
        b -= 0.5 * float(slope.mean())
    return w, b


def main(patients: int = 128) -> None:
    """Train on most of the data, score the rest encrypted, and compare every decision."""
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError:
        print("scikit-learn, which has the data, is not installed")
        return
    data, labels = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(data))
    data, labels = data[order], labels[order]
    data = (data - data.mean(axis=0)) / data.std(axis=0)
    data = np.clip(data / 3, -1, 1)  # what is encrypted lies between -1 and 1
    X, answers = data[:patients], labels[:patients]
    w, b = trained(data[patients:], labels[patients:])
    scores = X @ w + b
    assert np.abs(scores).max() <= 16, "outside of the polynomial's range"

    program = stein.compile(
        PROGRAM, X=stein.encrypted(X.shape), w=stein.constant(w), b=stein.constant(b), dtype="float64", target="ckks"
    )
    client, server = program.keygen()
    h = client.decrypt(server.run(client.encrypt(X=X)))

    clear = 1 / (1 + np.exp(-scores))
    same = np.mean((h > 0.5) == (clear > 0.5))
    accuracy, of_clear = np.mean((h > 0.5) == answers), np.mean((clear > 0.5) == answers)
    off = np.abs(h - clear).max()
    assert off <= program.stats["approximation_error"] + 1e-4
    print(f"{program.stats['levels']} levels at ring {program.stats['ring']}: {server.executed}")
    print(f"accuracy {accuracy:.1%} encrypted, {of_clear:.1%} in clear, {same:.1%} of the decisions agree")
    print(f"probabilities off by {off:.3f}, the polynomial by {program.stats['approximation_error']:.3f} at most")
    assert accuracy == of_clear and same == 1


if __name__ == "__main__":
    main()
