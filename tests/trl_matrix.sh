#!/bin/sh
# The TRL tests on several versions of TRL, one line each: trl_matrix.sh PYTHON [VERSION ...]
# By default the oldest that pyproject.toml allows, the one of requirements.lock, and the newest on the index. A version
# lies in a folder of its own outside the clone, which comes before the environment's packages on the path; the other
# packages stay those of the lock. TRL 1.12 and older also need requests and jmespath without telling pip.
python=$1
shift
if [ $# -eq 0 ]; then
  oldest=$(sed -n 's/^trl = \["trl>=\([0-9.]*\),.*/\1/p' pyproject.toml)
  locked=$(sed -n 's/^trl==//p' requirements.lock)
  newest=$("$python" -m pip index versions trl 2>/dev/null | sed -n '1s/.*(\(.*\)).*/\1/p')
  set -- $(printf '%s\n' "$oldest" "$locked" ${newest:-} | sort -Vu)
fi
cache=${XDG_CACHE_HOME:-$HOME/.cache}/viprl/trl
mkdir -p "$cache"
failed=0
for version in "$@"; do
  folder=$cache/$version
  if [ ! -d "$folder" ]; then
    rm -rf "$folder.new"
    if ! { "$python" -m pip install --quiet --no-deps --target "$folder.new" "trl==$version" &&
           "$python" -m pip install --quiet --target "$folder.new" requests jmespath; } > "$cache/$version.log" 2>&1
    then
      echo "trl $version: not installed, see $cache/$version.log"; failed=1; continue
    fi
    mv "$folder.new" "$folder"
  fi
  PYTHONPATH=$folder OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false TRL_EXPERIMENTAL_SILENCE=1 \
    "$python" -m pytest -n 2 -p no:cacheprovider --tb=short tests/engines/trl > "$cache/$version.log" 2>&1 || failed=1
  echo "trl $version: $(tail -n 1 "$cache/$version.log")"
done
[ $failed -eq 0 ] || echo "the tests' output is in $cache/VERSION.log"
exit $failed
