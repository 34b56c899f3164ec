#!/usr/bin/env bash
# Build the peers into a directory: install.sh out/peers. Needs python3, git, cmake and a C++ compiler; 20 minutes on 2 cores.
# Each peer that cannot be built is left out: the comparison then skips it and says so.
set -uo pipefail
directory=$(realpath -m "$1")
bigmoeonedge=${BIGMOEONEDGE:-https://github.com/Helldez/BigMoeOnEdge}
mkdir -p "$directory/bin"

# On a virtual machine with AMX, llama.cpp 0.3.36's repacked weights died of an illegal instruction; moedge does not use AMX either.
if grep -q amx_tile /proc/cpuinfo; then
  export CFLAGS="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16" CXXFLAGS="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
fi

python3 -m venv "$directory/venv"
"$directory/venv/bin/pip" install --quiet llama-cpp-python gguf numpy || { rm -rf "$directory/venv"; exit 1; }

# On the same sources of llama.cpp: those of the Python package.
version=$("$directory/venv/bin/python" -c 'from importlib.metadata import version; print(version("llama-cpp-python"))')
sources=$directory/llama_cpp_python-$version
[[ -d $sources ]] || {
  "$directory/venv/bin/pip" download --quiet --no-deps --no-binary llama-cpp-python --dest "$directory" "llama-cpp-python==$version"
  mkdir "$sources"
  tar --extract --strip-components 1 --file "$directory"/llama_cpp_python-"$version".tar.gz --directory "$sources"
}
[[ -d $directory/bigmoeonedge ]] || git clone --quiet "$bigmoeonedge" "$directory/bigmoeonedge"
rm -rf "$directory/bigmoeonedge/third_party/llama.cpp"
ln -s "$sources/vendor/llama.cpp" "$directory/bigmoeonedge/third_party/llama.cpp"
# Speculative decoding, not used here, is written for another version of llama.cpp's common library.
sed -i -E 's/common_speculative_process\(im\.mtp\.get\(\), [a-z_.]+\)/false/; /dp\.n_past = n_past;/d' \
  "$directory/bigmoeonedge/core/src/engine/session.cpp"
cmake -S "$directory/bigmoeonedge" -B "$directory/build" -DCMAKE_BUILD_TYPE=Release -DBMOE_BUILD_TESTS=OFF -DBUILD_SHARED_LIBS=OFF &&
  cmake --build "$directory/build" --target bmoe-cli --parallel "$(nproc)" &&
  cp "$directory/build/cli/bmoe-cli" "$directory/bin/"
