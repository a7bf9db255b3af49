//! The part of the script that reads the boot state, decides, and counts.

use crate::board::Environment;
use crate::boot::state::MAX_TRIES;
use crate::boot::uboot::env::HEADER;
use crate::boot::variables::{FORMAT, GOOD, MARK, TRIAL, TRIES};

const SECTOR: u64 = 512;
const HEX_DIGITS: &str = "0 1 2 3 4 5 6 7 8 9 a b c d e f";

/// One copy in the script's numbers; all in hexadecimal, as U-Boot takes them.
struct Numbers {
    /// First sectors of the copies.
    starts: [String; 2],
    /// Sectors in a copy.
    sectors: String,
    /// Bytes in a copy.
    size: String,
    /// Bytes of its data.
    data: String,
    /// Bytes of CRC and data, without the flag: what `env import -c` and `env export -c` know.
    flagless: String,
    /// Where a copy stands whole while its parts are moved, from the start of the work area; and its flag
    /// and data.
    whole: String,
    whole_flag: String,
    whole_data: String,
}

impl Numbers {
    fn new(environment: &Environment) -> Self {
        let hex = |number: u64| format!("{number:x}");
        let size = environment.size.0;
        let header = HEADER as u64;
        let whole = size.next_multiple_of(0x1000);
        Self {
            starts: [environment.offset, environment.redundant_offset]
                .map(|offset| hex(offset.0 / SECTOR)),
            sectors: hex(size.div_ceil(SECTOR)),
            size: hex(size),
            data: hex(size.saturating_sub(header)),
            flagless: hex(size.saturating_sub(1)),
            whole: hex(whole),
            whole_flag: hex(whole + header - 1),
            whole_data: hex(whole + header),
        }
    }

    /// Moves a copy at the start of the work area so that CRC and data stand there without the flag.
    fn drop_flag(&self) -> String {
        let Self {
            data,
            whole,
            whole_data,
            ..
        } = self;
        format!("cp.b {whole} 0 4; cp.b {whole_data} 4 {data}")
    }
}

/// Reads both copies: `tl_state` is set if there is a state, which then is `tl_known`, `tl_trial` and
/// `tl_tries`; without one, `tl_known` is what the spare record says. `tl_new` is the copy that counts.
pub(super) fn read(environment: &Environment) -> String {
    let numbers = Numbers::new(environment);
    let mut text = String::from(
        "\
# The boot state: two copies of CRC, flag and data. The newer valid one counts.
${tl_type} dev ${tl_number}
base ${tl_kernel}
",
    );
    for copy in [1, 2] {
        text.push_str(&read_copy(&numbers, copy));
    }
    text.push_str("base 0\n");
    text.push_str(NEWER);
    text.push_str(&adopt());
    text
}

fn read_copy(numbers: &Numbers, copy: usize) -> String {
    let Numbers {
        sectors,
        size,
        flagless,
        whole,
        whole_flag,
        ..
    } = numbers;
    let start = &numbers.starts[copy - 1];
    let drop_flag = numbers.drop_flag();
    format!(
        "\
tl_valid{copy}=0
if ${{tl_type}} read ${{tl_kernel}} {start} {sectors}; then
  cp.b 0 {whole} {size}
  # The flag, and the one that follows it.
  cp.b {whole_flag} 0 1
  tl_hit=0
  tl_next{copy}=00
  for tl_high in {HEX_DIGITS}; do
    for tl_low in {HEX_DIGITS}; do
      if test ${{tl_hit}} = 1; then
        tl_next{copy}=${{tl_high}}${{tl_low}}
        tl_hit=0
      fi
      if itest.b *${{tl_kernel}} == 0x${{tl_high}}${{tl_low}}; then
        tl_flag{copy}=${{tl_high}}${{tl_low}}
        tl_hit=1
      fi
    done
  done
  {drop_flag}
  setenv {MARK}; setenv {GOOD}; setenv {TRIAL}; setenv {TRIES}
  if env import -c ${{tl_kernel}} {flagless} {MARK} {GOOD} {TRIAL} {TRIES}; then
    tl_valid{copy}=1
    setenv tl_mark{copy} \"${{{MARK}}}\"
    setenv tl_good{copy} \"${{{GOOD}}}\"
    setenv tl_trial{copy} \"${{{TRIAL}}}\"
    setenv tl_tries{copy} \"${{{TRIES}}}\"
  fi
fi
"
    )
}

const NEWER: &str = "\
tl_new=0
if test ${tl_valid1} = 1; then
  tl_new=1
fi
if test ${tl_valid2} = 1; then
  if test ${tl_valid1} = 0; then
    tl_new=2
  elif test ${tl_flag1}${tl_flag2} = ff00; then
    tl_new=2
  elif test ${tl_flag1}${tl_flag2} = 00ff; then
    tl_new=1
  elif itest 0x${tl_flag2} -gt 0x${tl_flag1}; then
    tl_new=2
  fi
fi
";

/// Takes the variables of the copy that counts for the state, if they are one.
fn adopt() -> String {
    let mut text = String::from("setenv tl_known\nsetenv tl_trial\nsetenv tl_tries\ntl_state=0\n");
    for (copy, other) in [(1, 2), (2, 1)] {
        text.push_str(&format!(
            "\
if test ${{tl_new}} = {copy}; then
  if test \"x${{tl_mark{copy}}}\" = x{FORMAT}; then
    setenv tl_known \"${{tl_good{copy}}}\"
    setenv tl_trial \"${{tl_trial{copy}}}\"
    setenv tl_tries \"${{tl_tries{copy}}}\"
  fi
  if test -n \"${{tl_known}}\"; then
    for tl_digit in {digits}; do
      if test \"x${{tl_tries}}\" = \"x${{tl_digit}}\"; then
        tl_state=1
      fi
    done
  elif test ${{tl_valid{other}}} = 1; then
    if test \"x${{tl_mark{other}}}\" = x{FORMAT}; then
      setenv tl_known \"${{tl_good{other}}}\"
    fi
  fi
fi
",
            digits = (0..=MAX_TRIES)
                .map(|digit| digit.to_string())
                .collect::<Vec<_>>()
                .join(" "),
        ));
    }
    text
}

/// Sets `tl_choice`, the number of the entry to boot, and `tl_counted` if its boot was counted.
pub(super) fn choose(environment: &Environment) -> String {
    let mut count = String::new();
    for tries in 1..=MAX_TRIES {
        let word = if tries == 1 { "if" } else { "elif" };
        let left = tries - 1;
        count.push_str(&format!(
            "    {word} test \"x${{tl_tries}}\" = x{tries}; then tl_left={left}\n"
        ));
    }
    format!(
        "\
# The rule.
tl_choice=0
tl_counted=0
if test ${{tl_state}} = 1; then
  if test ${{tl_at_known}} = 1; then
    tl_choice=1
  elif test ${{tl_first_on_trial}} = 1; then
    tl_left=none
{count}    fi
    if test ${{tl_left}} != none; then
{save}
    fi
  fi
fi
if test ${{tl_choice}} = 0; then
  if test ${{tl_at_known}} != 0; then
    tl_choice=${{tl_at_known}}
  elif test -n \"${{kernel_image2}}\"; then
    tl_choice=2
  else
    tl_choice=1
  fi
fi
",
        save = save(&Numbers::new(environment)),
    )
}

/// Writes `tl_left` into the copy that does not count. A boot that could not be counted is not made: only
/// what reads back counts.
///
/// What an operator has put into the environment must stay there, and this shell cannot name it. So the
/// copy becomes U-Boot's whole environment for a moment, is changed and exported, and then U-Boot's own
/// returns.
fn save(numbers: &Numbers) -> String {
    let Numbers {
        starts: [first, second],
        sectors,
        size,
        data,
        flagless,
        whole,
        whole_flag,
        whole_data,
    } = numbers;
    let drop_flag = numbers.drop_flag();
    format!(
        "\
      if test ${{tl_new}} = 1; then
        tl_from={first}; tl_to={second}; tl_next=${{tl_next1}}
      else
        tl_from={second}; tl_to={first}; tl_next=${{tl_next2}}
      fi
      env export -b ${{tl_ramdisk}}
      tl_own=${{filesize}}
      base ${{tl_kernel}}
      tl_made=0
      if ${{tl_type}} read ${{tl_kernel}} ${{tl_from}} {sectors}; then
        cp.b 0 {whole} {size}
        {drop_flag}
        if env import -c -d ${{tl_kernel}} {flagless}; then
          setenv {TRIES} ${{tl_left}}
          if env export -c -s {flagless} ${{tl_kernel}}; then
            tl_made=1
          fi
        fi
        env import -b -d ${{tl_ramdisk}} ${{tl_own}}
      fi
      if test ${{tl_made}} = 1; then
        cp.b 0 {whole} 4
        mw.b {whole_flag} ${{tl_next}}
        cp.b 4 {whole_data} {data}
        cp.b {whole} 0 {size}
        if ${{tl_type}} write ${{tl_kernel}} ${{tl_to}} {sectors}; then
          mw.b 0 0 {size}
          if ${{tl_type}} read ${{tl_kernel}} ${{tl_to}} {sectors}; then
            if cmp.b 0 {whole} {size}; then
              tl_choice=1
              tl_counted=1
            fi
          fi
        fi
      fi
      base 0"
    )
}
