#!/bin/sh
# The core's tests with its oldest and its newest dependencies, one line each: core_matrix.sh PYTHON TESTS ...
# PYTHON, which has pip, runs the oldest and the newest; Python 3.12 and later, as far as they are installed, the newest.
# Oldest: the lower bounds in pyproject.toml. The environments are made anew each time.
with_pip=$1
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0

row() {  # NAME PYTHON "REQUIREMENTS", then the tests
  name=$1 python=$2 requirements=$3
  shift 3
  environment=$folder/environment
  rm -rf "$environment"
  if ! { "$python" -m venv --without-pip "$environment" &&
         "$with_pip" -m pip --python "$environment/bin/python" install --quiet pytest hypothesis $requirements; } \
         > "$folder/log" 2>&1
  then
    echo "core, $name: not installed"; tail -n 5 "$folder/log"; failed=1; return
  fi
  if ! PYTHONPATH=$PWD/src OMP_NUM_THREADS=1 \
    "$environment/bin/python" -m pytest -p no:cacheprovider --tb=short "$@" > "$folder/log" 2>&1
  then
    grep -E '^(FAILED|ERROR|E  )' "$folder/log" | head -n 20; failed=1
  fi
  echo "core, $name: $(tail -n 1 "$folder/log")"
}

dependencies=$(sed -n 's/^dependencies = \[\(.*\)\]$/\1/p' pyproject.toml | tr -d '",')
row "oldest dependencies" "$with_pip" "$(printf '%s' "$dependencies" | sed 's/>=/==/g')" "$@"
row "newest dependencies" "$with_pip" "$dependencies" "$@"
for version in 3.12 3.13 3.14; do
  if "python$version" -c "" 2>/dev/null; then
    row "newest dependencies, Python $version" "python$version" "$dependencies" "$@"
  fi
done
exit $failed
